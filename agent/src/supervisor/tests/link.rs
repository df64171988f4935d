//! The conversation with the master: registration, silence, and masters of the past.

use divvy_proto::scheduler::StreamError;

use super::*;

#[test]
fn the_first_registration_brings_an_id_that_is_kept() {
    let mut bench = Bench::blank();
    bench.feed(Input::Recovered(Recovered::default()));
    assert_eq!(bench.feed(Input::Connected(LinkId(1))), ["register - []"]);
    assert_eq!(bench.registered(1), ["write agent a"]);
    assert_eq!(bench.core.agent_id().map(AgentId::as_str), Some("a"));
}

#[test]
fn an_agent_that_comes_back_tells_all_it_runs_and_sends_again_what_is_due() {
    let mut bench = Bench::running(task("t"));
    bench.exits(ExitStatus::Code(0));
    bench.written();
    bench.feed(Input::Disconnected(LinkId(1)));
    assert_eq!(
        bench.feed(Input::Connected(LinkId(9))),
        ["register a [\"t KILLING\"]"],
        "its resources are not free before its container is gone, but nobody counts on it"
    );
    bench.feed(Input::Disconnected(LinkId(9)));
    assert!(bench.feed(Input::Destroyed(container(1))).is_empty(), "nobody is there to hear it");
    assert!(bench.pass(secs(3600)).is_empty());
    bench.link = LinkId(2);
    assert_eq!(bench.feed(Input::Connected(LinkId(2))), ["register a [\"t FINISHED\"]"]);
    assert_eq!(bench.registered(2), ["send t i-3 FINISHED command_exited pid 77 exit code 0: exit code 0"]);
}

#[test]
fn a_deposed_master_is_not_obeyed() {
    let mut bench = Bench::blank();
    bench.feed(Input::Recovered(Recovered::default()));
    bench.feed(Input::Connected(LinkId(1)));
    bench.registered(7);
    bench.link = LinkId(2);
    bench.feed(Input::Connected(LinkId(2)));
    assert_eq!(bench.registered(6), ["hang up: this master's epoch is 6, but a newer one, 7, was heard"]);
    assert!(bench.hear(launch(task("t"))).is_empty());
}

#[test]
fn orders_before_the_registration_and_from_old_streams_are_void() {
    let mut bench = Bench::new();
    bench.feed(Input::Connected(LinkId(2)));
    assert!(bench.hear(launch(task("t"))).is_empty(), "stream 1 is past");
    bench.link = LinkId(2);
    assert_eq!(bench.hear(launch(task("t"))), ["hang up: the master gave orders before the registration"]);
}

#[test]
fn a_master_that_falls_silent_is_looked_for_anew() {
    let mut bench = Bench::new();
    bench.pass(secs(70));
    assert_eq!(bench.hear(MasterMessage::Ping), ["pong"]);
    assert!(bench.pass(secs(74)).is_empty());
    assert_eq!(bench.pass(secs(1)), ["hang up: the master has fallen silent"]);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn what_was_in_flight_when_the_stream_broke_is_sent_at_once_on_the_next() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    bench.written();
    bench.link = LinkId(2);
    bench.feed(Input::Connected(LinkId(2)));
    assert_eq!(bench.registered(1), ["send t i-1 STARTING command_exited: the container is being prepared"]);
}

#[test]
fn an_agent_that_was_declared_gone_ends_all_it_runs_and_comes_back_as_a_new_one() {
    let mut bench = Bench::running(task("t"));
    bench.hear(launch(task("u")));
    bench.written();
    assert_eq!(
        bench.hear(MasterMessage::Error(StreamError::Gone)),
        ["write t KILLING []", "cancel i-2", "write u KILLED []", "hang up: the agent was declared gone",]
    );
    assert_eq!(bench.core.agent_id(), None);
    assert_eq!(bench.written(), ["terminate i-1", "destroy i-2"]);
    bench.link = LinkId(2);
    assert_eq!(bench.feed(Input::Connected(LinkId(2))), ["register - []"], "what is gone is not its own");
    let agent_id = AgentId::new("b").unwrap();
    let registered = MasterMessage::Registered { agent_id, epoch: Epoch(1), ping_interval: secs(15) };
    assert_eq!(bench.hear(registered), ["write agent b"]);

    assert_eq!(bench.feed(Input::Destroyed(container(2))), ["forget i-2"], "nobody is told");
    assert_eq!(bench.exits(ExitStatus::Signal(15)), ["write t KILLED []"]);
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(bench.feed(Input::Destroyed(container(1))), ["forget i-1"]);
    assert_eq!(bench.core.known_tasks().count(), 0);
}

#[test]
fn a_crash_between_the_old_id_and_the_new_does_not_bring_back_what_is_gone() {
    let mut bench = Bench::running(task("t"));
    bench.hear(MasterMessage::Error(StreamError::Gone));
    let mut next = Bench::blank();
    let running = crate::container::ContainerState::Running { pid: 77, addresses: Vec::new() };
    next.feed(Input::Recovered(Recovered {
        agent: Some(crate::supervisor::AgentRecord { agent_id: AgentId::new("a").unwrap() }),
        tasks: bench.records.iter().map(|record| (record.clone(), running.clone())).collect(),
        ..Recovered::default()
    }));
    assert_eq!(next.feed(Input::Connected(LinkId(1))), ["register a []"]);
    assert_eq!(next.hear(MasterMessage::Error(StreamError::Gone)), ["hang up: the agent was declared gone"]);
    next.link = LinkId(2);
    assert_eq!(next.feed(Input::Connected(LinkId(2))), ["register - []"]);
}
