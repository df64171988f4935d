//! What goes wrong, done to the world.

use divvy_proto::time::Timestamp;
use rand::Rng;

use crate::agent::SIZES;
use crate::framework::GUEST;
use crate::operator::Errand;
use crate::script::{Step, Store};
use crate::world::{Happening, World};

impl World {
    pub fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::CrashMaster => {
                self.crash_master();
                let (at, life) = (self.now + self.delay(100..30_000), self.master.life);
                self.at(at, Happening::StartMaster { life });
            }
            Step::CrashAgent(agent) => {
                self.crash_agent(agent);
                self.agent_comes_back(agent);
            }
            Step::RebootAgent(agent) => {
                self.reboot_agent(agent);
                self.agent_comes_back(agent);
            }
            Step::ResizeAgent(agent) => {
                self.crash_agent(agent);
                let size = SIZES[self.rng.random_range(0..SIZES.len())];
                self.agents[agent].resize(size);
                self.agent_comes_back(agent);
            }
            Step::ReplaceMachine(agent, known_after) => {
                let lost = self.replace_machine(agent);
                self.agent_comes_back(agent);
                if let Some(id) = lost {
                    self.send_operator(self.now + known_after, Errand::MarkGone(id));
                }
            }
            Step::PartitionAgent(agent, time) => {
                self.agents[agent].partitioned_until = self.now + time;
                if let Some(wire) = self.agents[agent].wire {
                    self.cut(wire);
                }
            }
            Step::CrashFramework(kind) => self.crash_and_restart_framework(self.current[kind]),
            Step::TakeOver(kind) => return self.take_over(kind),
            Step::DismissGuest => {
                self.frameworks[self.current[GUEST]].dismissed = true;
                self.send_operator(self.now, Errand::TearDownGuests);
            }
            Step::Condemn(agent) => {
                if let Some(id) = self.agents[agent].id().cloned() {
                    self.send_operator(self.now, Errand::MarkGone(id));
                }
            }
            Step::Operate(errand) => self.send_operator(self.now, errand),
            Step::KillSomeTask => self.send_operator(self.now, Errand::KillSomeTask),
            Step::StallStore(store, time) => self.stall(store, self.now + time),
            Step::CutWire => {
                let up = self.wires_up(|_| true);
                if !up.is_empty() {
                    let chosen = up[self.rng.random_range(0..up.len())];
                    self.cut(chosen);
                }
            }
            wish => return self.wish(wish),
        }
        Ok(())
    }

    fn agent_comes_back(&mut self, agent: usize) {
        let (at, life) = (self.now + self.delay(100..120_000), self.agents[agent].life);
        self.at(at, Happening::StartAgent { agent, life });
    }

    pub fn crash_and_restart_framework(&mut self, framework: usize) {
        self.crash_framework(framework);
        let (at, life) = (self.now + self.delay(100..60_000), self.frameworks[framework].life);
        self.at(at, Happening::StartFramework { framework, life });
    }

    /// Nothing more becomes durable until then.
    fn stall(&mut self, store: Store, until: Timestamp) {
        let stored_until = match store {
            Store::Master => &mut self.master.stored_until,
            Store::Agent(agent) => &mut self.agents[agent].written_until,
            Store::Framework(kind) => &mut self.frameworks[self.current[kind]].stored_until,
        };
        *stored_until = until.max(*stored_until);
    }

    /// What was on the way to a store when its process died: the first few are durable, the rest are lost.
    pub fn writes_cut_short(&mut self, is_one: impl Fn(&Happening) -> bool) -> Vec<Happening> {
        let under_way = self.take_from_queue(is_one);
        let durable = self.rng.random_range(0..=under_way.len());
        under_way.into_iter().take(durable).collect()
    }
}
