//! Changes from outside, and what wakes the scheduler.

use divvy_proto::api::{Agent, AgentState, ResourceUse};

use super::*;

fn agent(used: &str) -> Agent {
    let total: divvy_proto::Resources = "cpus=4".parse().unwrap();
    let resources = ResourceUse { total, used: used.parse().unwrap(), ..ResourceUse::default() };
    Agent {
        id: agent_id(),
        hostname: Hostname::new("host-1").unwrap(),
        state: AgentState::Active,
        resources,
        attributes: Attributes::default(),
        tasks: 0,
        address: "127.0.0.1".into(),
        url: String::new(),
        version: String::new(),
        since: Timestamp(0),
        deactivated: false,
        drain: None,
        maintenance: None,
        reserved: Vec::new(),
        volumes: Vec::new(),
        revocable: Default::default(),
    }
}

/// How often the scheduler is called for these inputs.
fn calls(world: &mut World, inputs: impl IntoIterator<Item = Input>) -> usize {
    let before = world.driver.scheduler().called;
    world.feed_all(inputs);
    world.driver.scheduler().called - before
}

#[test]
fn a_change_from_outside_is_durable_when_its_token_is() {
    let mut world = World::durable();
    let mut effects = Vec::new();
    let change = |_: &mut Scripted, view: &View| {
        let mut actions = Actions::none();
        actions.put("apps/web", b"3".to_vec());
        (view.live(), actions)
    };
    let answer = world.driver.apply(world.now, change, &mut effects);
    assert_eq!(answer, (0, Some(PersistToken(1))));
    assert_eq!(effects, [persist(1, [Write::Put { key: "apps/web".into(), value: b"3".to_vec() }])]);
    assert_eq!(calls(&mut world, []), 1);
}

#[test]
fn a_change_from_outside_does_not_acknowledge_what_reconcile_has_not_seen() {
    let mut world = World::running();
    let mut effects = Vec::new();
    let end = Input::Event(Event::Update(status("t1", TaskState::Finished, Some("u2"))));
    world.driver.handle(world.now, end, &mut effects);
    world.driver.apply(world.now, |_, _| ((), Actions::none()), &mut effects);
    assert_eq!(effects, [persist(3, [world.record("t1")])]);
    assert_eq!(world.persisted(3), [send(5, acknowledge("t1", "u2"))]);
}

#[test]
fn the_last_word_on_a_key_counts_and_the_drivers_own_are_out_of_reach() {
    let mut world = World::durable();
    world.then(|_, _| {
        let mut actions = Actions::none();
        actions.put("a", b"1".to_vec());
        actions.put("framework/id", b"f2".to_vec());
        actions.delete("a");
        actions
    });
    let effects = world.event(Event::Failure { agent_id: agent_id() });
    assert_eq!(effects, [persist(1, [Write::Delete { key: "a".into() }])]);
}

#[test]
fn many_inputs_are_one_call() {
    let mut world = World::running();
    let inputs =
        ["u2", "u3"].map(|id| Input::Event(Event::Update(status("t1", TaskState::Running, Some(id)))));
    assert_eq!(calls(&mut world, inputs), 1);
}

#[test]
fn only_what_an_agent_is_wakes_the_scheduler() {
    let mut world = World::subscribed();
    assert_eq!(calls(&mut world, [Input::Agents(vec![agent("")])]), 1);
    assert_eq!(calls(&mut world, [Input::Agent(agent("cpus=1"))]), 0);
    assert_eq!(world.driver.view().agents().next(), Some(&agent("cpus=1")));
    let lost = Agent { state: AgentState::Unreachable, ..agent("cpus=1") };
    assert_eq!(calls(&mut world, [Input::Agent(lost)]), 1);
    assert_eq!(calls(&mut world, [Input::Agents(Vec::new())]), 1);
    assert_eq!(calls(&mut world, [Input::Event(Event::Heartbeat)]), 0);
}

#[test]
fn the_scheduler_is_woken_when_it_wants() {
    let mut world = World::subscribed();
    let at = world.now + secs(3);
    world.then(move |_, _| {
        let mut actions = Actions::none();
        actions.wake_at(at);
        actions
    });
    world.event(Event::Failure { agent_id: agent_id() });
    assert_eq!(world.driver.next_deadline(), Some(at));
    world.now = at;
    assert_eq!(calls(&mut world, [Input::Tick]), 1);
    assert!(world.driver.next_deadline() > Some(at));
}
