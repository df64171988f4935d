//! Random interleavings of everything that can happen, against a model of the master and of the store that only watches.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Something happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Happening {
    Offers(u8),
    Rescind(u8),
    Update(u8, TaskState),
    Repeat(u8),
    Reply(u8, bool),
    Persisted,
    Drop,
    Reconnect,
    Wait(u16),
    Launch(bool),
    Kill(u8),
    Forget,
    Want(bool),
    EndTurn,
}

fn happening() -> impl Strategy<Value = Happening> {
    use TaskState::*;
    let states =
        prop::sample::select(vec![Starting, Running, Unreachable, Finished, Failed, Killed, Gone, Unknown]);
    prop_oneof![
        2 => (0..4_u8).prop_map(Happening::Offers),
        1 => any::<u8>().prop_map(Happening::Rescind),
        4 => (any::<u8>(), states).prop_map(|(task, state)| Happening::Update(task, state)),
        1 => any::<u8>().prop_map(Happening::Repeat),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(call, fine)| Happening::Reply(call, fine)),
        4 => Just(Happening::Persisted),
        1 => Just(Happening::Drop),
        3 => Just(Happening::Reconnect),
        2 => (0..20_000_u16).prop_map(Happening::Wait),
        2 => any::<bool>().prop_map(Happening::Launch),
        2 => any::<u8>().prop_map(Happening::Kill),
        1 => Just(Happening::Forget),
        1 => any::<bool>().prop_map(Happening::Want),
        6 => Just(Happening::EndTurn),
    ]
}

/// What the scheduler is told to do, from outside its `reconcile`.
#[derive(Debug, Default)]
struct Wishes {
    launch: bool,
    launched: usize,
    kill: Option<usize>,
    forget: bool,
    want: bool,
    /// Updates that `reconcile` has seen in the view.
    seen: BTreeSet<UpdateId>,
}

impl Scheduler for Wishes {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        self.seen.extend(view.tasks().filter_map(|task| task.status.update_id.clone()));
        let mut actions = Actions::none().needs_offers(self.want);
        for mut offer in offers.into_iter().filter(|_| self.launch) {
            self.launched += 1;
            let _ = offer.take(task_id(&format!("t{}", self.launched)), &TaskSpec::shell("true"));
            actions.accept(offer.accept());
        }
        let live: Vec<_> = view.tasks().filter(|task| task.is_live()).map(|task| task.id().clone()).collect();
        if let Some(kill) = self.kill.take().filter(|_| !live.is_empty()) {
            actions.kill(live[kill % live.len()].clone());
        }
        if std::mem::take(&mut self.forget) {
            view.tasks().filter(|task| !task.is_live()).for_each(|task| actions.forget(task.id().clone()));
        }
        actions
    }
}

/// Watches what the driver does.
struct Model {
    driver: Driver<Wishes>,
    now: Timestamp,
    connected: bool,
    store: BTreeMap<String, Vec<u8>>,
    /// Persists that are not yet durable, in order.
    pending: VecDeque<(PersistToken, Vec<Write>)>,
    offered: u64,
    /// Offers of this connection that have been neither used nor declined.
    outstanding: BTreeSet<OfferId>,
    /// Calls without a reply.
    calls: VecDeque<CallId>,
    /// Tasks whose Accept has left.
    left: Vec<TaskId>,
    /// All updates sent, and those acknowledged.
    sent: Vec<TaskStatus>,
    acknowledged: BTreeSet<UpdateId>,
    suppressed: bool,
    kills: Vec<TaskId>,
}

impl Model {
    fn new() -> Self {
        let restored = Restored { framework_id: FrameworkId::new("f1").ok(), tasks: Vec::new() };
        let wishes = Wishes { launch: true, want: true, ..Wishes::default() };
        Self {
            driver: Driver::new(config(true), wishes, restored),
            now: Timestamp(1_000_000),
            connected: false,
            store: BTreeMap::new(),
            pending: VecDeque::new(),
            offered: 0,
            outstanding: BTreeSet::new(),
            calls: VecDeque::new(),
            left: Vec::new(),
            sent: Vec::new(),
            acknowledged: BTreeSet::new(),
            suppressed: false,
            kills: Vec::new(),
        }
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Offers(count) if self.connected => {
                let first = self.offered;
                self.offered += u64::from(count);
                self.outstanding.extend((first..self.offered).map(OfferId));
                self.event(Event::Offers((first..self.offered).map(offer).collect()));
            }
            Happening::Rescind(id) if self.connected => self.event(Event::Rescind(OfferId(id.into()))),
            Happening::Update(task, state) if self.connected && !self.left.is_empty() => {
                let id = self.left[usize::from(task) % self.left.len()].clone();
                let update = format!("u{}", self.sent.len());
                // The master's own words have nothing to acknowledge.
                let agent = !matches!(state, TaskState::Unreachable | TaskState::Unknown | TaskState::Gone);
                let status = status(id.as_str(), state, agent.then_some(update.as_str()));
                self.sent.push(status.clone());
                self.event(Event::Update(status));
            }
            Happening::Repeat(update) if self.connected && !self.sent.is_empty() => {
                let status = self.sent[usize::from(update) % self.sent.len()].clone();
                self.event(Event::Update(status));
            }
            Happening::Reply(at, fine) if self.connected && !self.calls.is_empty() => self.reply(at, fine),
            Happening::Persisted => self.persisted(),
            Happening::Drop => self.drop_connection(),
            Happening::Reconnect => self.reconnect(),
            Happening::Wait(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.input(Input::Tick);
            }
            Happening::Launch(launch) => self.driver.scheduler.launch = launch,
            Happening::Kill(task) => self.driver.scheduler.kill = Some(task.into()),
            Happening::Forget => self.driver.scheduler.forget = true,
            Happening::Want(want) => self.driver.scheduler.want = want,
            Happening::EndTurn => self.end_turn(),
            _ => {}
        }
    }

    fn reply(&mut self, at: u8, fine: bool) {
        let at = usize::from(at) % self.calls.len();
        let Some(call_id) = self.calls.remove(at) else { return };
        let refusal = divvy_proto::scheduler::Refusal::OfferGone(OfferId(0));
        let outcome = if fine { Outcome::Accepted } else { Outcome::Refused(refusal) };
        self.event(Event::Reply { call_id, outcome });
    }

    fn event(&mut self, event: Event) {
        self.input(Input::Event(event));
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.driver.handle(self.now, input, &mut effects);
        self.watch(effects);
    }

    fn end_turn(&mut self) {
        let mut effects = Vec::new();
        self.driver.end_turn(self.now, &mut effects);
        self.watch(effects);
    }

    fn persisted(&mut self) {
        let Some((token, writes)) = self.pending.pop_front() else { return };
        for write in writes {
            match write {
                Write::Put { key, value } => drop(self.store.insert(key, value)),
                Write::Delete { key } => drop(self.store.remove(&key)),
            }
        }
        self.input(Input::Persisted(token));
    }

    fn drop_connection(&mut self) {
        self.disconnected();
        self.input(Input::Disconnected);
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.calls.clear();
        self.outstanding.clear();
    }

    fn reconnect(&mut self) {
        if self.connected {
            return;
        }
        self.now = self.now.max(self.driver.next_deadline().unwrap());
        self.input(Input::Tick);
        self.input(Input::Connected);
        self.connected = true;
        // A Tick that found a connection too slow has closed it; then this comes to nothing.
        self.event(subscription());
        self.connected = self.driver.view().connected();
    }

    fn watch(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { token, writes } => self.pending.push_back((token, writes)),
                Effect::Disconnect => self.disconnected(),
                Effect::Send(call) => self.watch_call(call),
                Effect::Connect => {}
                Effect::Stop(error) => panic!("nobody asked for an end: {error}"),
            }
        }
    }

    fn watch_call(&mut self, call: Call) {
        match call.body {
            CallBody::Subscribe { suppressed, .. } => {
                self.suppressed = !suppressed.is_empty();
                return;
            }
            CallBody::Accept { offers, operations, .. } => {
                self.use_offers(&offers);
                for operation in operations {
                    let Operation::Launch(tasks) = operation else { panic!("{operation:?}") };
                    tasks.into_iter().for_each(|task| self.watch_launch(task.id));
                }
            }
            CallBody::Decline { offers, .. } => self.use_offers(&offers),
            CallBody::Acknowledge { task_id, update_id, .. } => {
                self.watch_acknowledgement(&task_id, update_id)
            }
            CallBody::Suppress { .. } => {
                assert!(!self.suppressed, "suppressed twice");
                self.suppressed = true;
            }
            CallBody::Revive { .. } => {
                assert!(self.suppressed, "revived without need");
                self.suppressed = false;
            }
            CallBody::Kill { task_id, .. } => self.kills.push(task_id),
            _ => {}
        }
        self.calls.push_back(call.id);
    }

    fn use_offers(&mut self, offers: &[OfferId]) {
        for id in offers {
            assert!(self.outstanding.remove(id), "offer {id} is used twice, or after its connection");
        }
    }

    fn record(&self, id: &TaskId) -> Option<Task> {
        let bytes = self.store.get(&format!("framework/tasks/{id}"))?;
        Some(serde_json::from_slice(bytes).unwrap())
    }

    fn watch_launch(&mut self, id: TaskId) {
        assert!(self.record(&id).is_some(), "{id} is launched and not stored");
        self.left.push(id);
    }

    /// What is acknowledged is in the store, or something later is, or the task has been forgotten.
    fn watch_acknowledgement(&mut self, id: &TaskId, update_id: UpdateId) {
        let update = self.sent.iter().find(|status| status.update_id.as_ref() == Some(&update_id)).unwrap();
        if let Some(task) = self.record(id) {
            let stored = task.status.update_id.as_ref() == Some(&update_id)
                || task.state() > update.state
                || task.state().is_terminal()
                || task.status.time >= update.time && task.state() == update.state;
            assert!(stored, "{update_id} is acknowledged while the store has {:?}", task.status);
        } else {
            assert!(
                self.driver.view().task(id).is_none(),
                "{id} is acknowledged, not stored and not forgotten"
            );
        }
        self.acknowledged.insert(update_id);
    }

    /// All is well for long enough: everything that was held back comes through.
    fn settle(&mut self) {
        self.driver.scheduler.launch = false;
        self.drop_connection();
        self.reconnect();
        let unacknowledged = |model: &Self| -> Vec<TaskStatus> {
            let open = |status: &&TaskStatus| {
                status.update_id.as_ref().is_some_and(|id| !model.acknowledged.contains(id))
            };
            model.sent.iter().filter(open).cloned().collect()
        };
        for status in unacknowledged(self) {
            self.event(Event::Update(status));
        }
        for _ in 0..4 {
            self.end_turn();
            while !self.pending.is_empty() {
                self.persisted();
            }
        }
        assert_eq!(unacknowledged(self), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_contract_is_kept(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut model = Model::new();
        for happening in happenings {
            model.step(happening);
        }
        model.settle();

        // No terminal update is lost: its task has ended in the view, and in the store, or is forgotten.
        for status in model.sent.iter().filter(|status| status.state.is_terminal()) {
            let ended = model.driver.view().task(&status.task_id).is_none_or(|task| !task.is_live());
            let stored = model.record(&status.task_id).is_none_or(|task| !task.is_live());
            prop_assert!(ended && stored, "{status:?} was lost");
        }

        // The store holds what the view shows, and nothing else.
        let shown: Vec<_> = model.driver.view().tasks().cloned().collect();
        let stored: Vec<_> = shown.iter().filter_map(|task| model.record(task.id())).collect();
        prop_assert_eq!(&shown, &stored);
        prop_assert_eq!(model.store.keys().filter(|key| key.contains("tasks/")).count(), shown.len());

        // Every task that is to end is told so again and again.
        let killing: BTreeSet<_> = shown.iter().filter(|task| task.killing).map(|task| task.id().clone()).collect();
        for _ in 0..2 {
            model.kills.clear();
            for _ in 0..9 {
                model.event(Event::Heartbeat);
                model.step(Happening::Wait(7_000));
            }
            let told: BTreeSet<_> = model.kills.iter().cloned().collect();
            prop_assert!(told.is_superset(&killing), "{told:?} of {killing:?}");
        }
        prop_assert_eq!(model.suppressed, !model.driver.scheduler.want);
    }
}
