// The live connection: server-sent events from the public API into one cluster that components subscribe to.

import { useSyncExternalStore } from "react";
import { CHANGE_KINDS, type Change } from "./api";
import { EMPTY, apply, type Cluster } from "./cluster";

export type Connection = "connecting" | "live" | "lost";

interface Live {
  cluster: Cluster;
  connection: Connection;
}

/** Longest wait before the next attempt, in milliseconds. */
const MAX_WAIT = 10_000;

class LiveCluster {
  private state: Live = { cluster: EMPTY, connection: "connecting" };
  private readonly listeners = new Set<() => void>();
  private pending: Change[] = [];
  private drawing = false;
  private wait = 500;

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  read = (): Live => this.state;

  connect(): void {
    const source = new EventSource("/api/v1/events");
    for (const kind of CHANGE_KINDS) {
      source.addEventListener(kind, (event: MessageEvent<string>) => {
        this.pending.push({ kind, data: JSON.parse(event.data) } as Change);
        if (kind === "snapshot") this.set({ connection: "live" });
        this.wait = 500;
        this.drawSoon();
      });
    }
    source.onerror = () => {
      // The browser would try again by itself, but not after every kind of failure; one rule for all of them is simpler.
      source.close();
      this.set({ connection: "lost" });
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(this.wait * 2, MAX_WAIT);
    };
  }

  /** Many changes may come at once: they are applied together, four times a second at the most. */
  private drawSoon(): void {
    if (this.drawing) return;
    this.drawing = true;
    setTimeout(() => {
      this.drawing = false;
      const changes = this.pending;
      this.pending = [];
      this.set({ cluster: apply(this.state.cluster, changes, Date.now()) });
    }, 250);
  }

  private set(part: Partial<Live>): void {
    this.state = { ...this.state, ...part };
    for (const listener of this.listeners) listener();
  }
}

const live = new LiveCluster();

export const connect = (): void => live.connect();

export const useCluster = (): Cluster => useSyncExternalStore(live.subscribe, () => live.read().cluster);

export const useConnection = (): Connection => useSyncExternalStore(live.subscribe, () => live.read().connection);
