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
    fs::write(directory.path().join(AGENT_COPY), &whole).unwrap();
    fs::write(directory.path().join("task-x.json.new"), "half").unwrap();
    let loaded = checkpoints.load().unwrap();
    assert_eq!((loaded.agent, loaded.tasks.len(), loaded.corrupt.len()), (Some(agent("a1")), 0, 1));
    assert_eq!(names(directory.path()), [AGENT_COPY, "agent.json.corrupt"]);
    assert_eq!(checkpoints.load().unwrap(), Loaded { agent: Some(agent("a1")), ..Loaded::default() });
}

/// Each version in turn, as an agent leaves it that dies while it writes the next.
#[test]
fn of_several_versions_the_last_whole_one_counts_and_a_changed_bit_in_any_is_found_out() {
    let versions = ["a1", "a2", "a3"].map(|id| encode(&agent(id)).unwrap());
    let (second, whole) = (versions[0].len() + versions[1].len(), versions.concat());
    for cut in second..whole.len() {
        assert_eq!(decode::<AgentRecord>(&whole[..cut]), Ok(agent("a2")), "cut at {cut}");
    }
    assert_eq!(decode::<AgentRecord>(&whole), Ok(agent("a3")));
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << bit;
        assert!(decode::<AgentRecord>(&changed).is_err(), "bit {bit} changed at {at}");
    }
}

/// What has been appended, and what has grown too long and was made anew.
#[test]
fn a_record_that_changes_for_ever_takes_a_bounded_file() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(directory.path().to_owned()).unwrap();
    let version = encode(&agent("a0")).unwrap().len();
    let (done, tokens) = channel();
    let writer = checkpoints.writer(move |token| done.send(token).unwrap()).unwrap();
    let mut longest = 0;
    for number in 1..=u64::try_from(2 * FILE_MAX / version).unwrap() {
        writer.write(Token(number), &Record::Agent(agent(&format!("a{}", number % 10))));
        assert_eq!(tokens.recv(), Ok(Token(number)));
        longest = longest.max(fs::metadata(directory.path().join(AGENT)).unwrap().len());
    }
    writer.close();
    let loaded = checkpoints.load().unwrap();
    assert_eq!((loaded.corrupt, loaded.agent.is_some()), (vec![], true));
    let several = u64::try_from(FILE_MAX / 2).unwrap()..=u64::try_from(FILE_MAX).unwrap();
    assert!(several.contains(&longest), "{longest} bytes");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Not even what is no file at all, or a name that is no text.
#[test]
fn nothing_in_the_directory_stops_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(directory.path().to_owned()).unwrap();
    written(&checkpoints, &["a1"]);
    fs::create_dir(directory.path().join("task-directory.json")).unwrap();
    fs::create_dir(directory.path().join("task-directory.json.new")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("task-link.json")).unwrap();
    let loaded = checkpoints.load().unwrap();
    assert_eq!((loaded.agent, loaded.tasks.len(), loaded.corrupt.len()), (Some(agent("a1")), 0, 2));
    assert_eq!(checkpoints.load().unwrap().corrupt, Vec::<String>::new());
}

proptest::proptest! {
    /// Bytes that nobody wrote are never taken for a record, and what is beside them is read.
    #[test]
    fn strange_bytes_cost_nothing_but_themselves(bytes: Vec<u8>, flip in 0_usize..1000, bit in 0_u8..8) {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(directory.path().to_owned()).unwrap();
        let whole = encode(&agent("a1")).unwrap();
        let mut changed = whole.clone();
        let flip = flip % whole.len();
        changed[flip] ^= 1 << bit;
        fs::write(directory.path().join(AGENT_COPY), whole).unwrap();
        fs::write(directory.path().join(AGENT), changed).unwrap();
        fs::write(directory.path().join("task-x.json"), &bytes).unwrap();
        let mut signed = bytes.clone();
        signed.retain(|byte| *byte != b'\n');
        signed.extend(format!("\nsha256 {}\n", checksum(&signed)).into_bytes());
        fs::write(directory.path().join("task-y.json"), &signed).unwrap();
        let loaded = checkpoints.load().unwrap();
        proptest::prop_assert_eq!((loaded.agent, loaded.tasks.len(), loaded.corrupt.len()), (Some(agent("a1")), 0, 3));
    }
}
