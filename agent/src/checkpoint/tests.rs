//! What survives, and what is found out.

use std::sync::mpsc::channel;

use divvy_proto::ids::AgentId;

use super::*;

fn agent(id: &str) -> AgentRecord {
    AgentRecord { agent_id: AgentId::new(id).unwrap() }
}

fn written(checkpoints: &Checkpoints, records: &[&str]) {
    let (done, tokens) = channel();
    let writer = checkpoints.writer(move |token| done.send(token).unwrap()).unwrap();
    for (number, id) in (1..).zip(records) {
        writer.write(Token(number), &Record::Agent(agent(id)));
    }
    let expected: Vec<Token> = (1..).map(Token).take(records.len()).collect();
    assert_eq!(tokens.iter().take(records.len()).collect::<Vec<_>>(), expected);
    writer.close();
}

#[test]
fn the_latest_record_is_read_back_and_every_token_is_reported_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(directory.path().to_owned()).unwrap();
    assert_eq!(checkpoints.load().unwrap(), Loaded::default());
    written(&checkpoints, &["a1", "a2", "a3"]);
    assert_eq!(checkpoints.load().unwrap(), Loaded { agent: Some(agent("a3")), ..Loaded::default() });
}

/// A crash while the new file is written leaves the old one; a disk that lies is found out.
#[test]
fn a_file_cut_or_changed_anywhere_is_set_aside_and_never_read_as_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(directory.path().to_owned()).unwrap();
    let whole = encode(&agent("a1")).unwrap();
    for cut in 0..whole.len() {
        assert!(decode::<AgentRecord>(&whole[..cut]).is_err(), "cut at {cut}");
        let mut changed = whole.clone();
        changed[cut] ^= 1;
        assert!(decode::<AgentRecord>(&changed).is_err(), "changed at {cut}");
    }
    fs::write(directory.path().join(AGENT), &whole[..20]).unwrap();
    fs::write(directory.path().join("task-x.json.new"), "half").unwrap();
    let loaded = checkpoints.load().unwrap();
    assert_eq!((loaded.agent, loaded.tasks.len(), loaded.corrupt.len()), (None, 0, 1));
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["agent.json.corrupt"]);
    assert_eq!(checkpoints.load().unwrap(), Loaded::default());
}
