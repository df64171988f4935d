//! Filters against a list that is looked through at every question, and what one of them costs.

use super::*;
use page::MOST_PER_PAIR;
use proptest::prelude::*;

/// A list of filters, looked through at every question.
#[derive(Default)]
struct List(Vec<(ClientIx, AgentIx, Resources, Timestamp)>);

impl List {
    fn block(&self, client: ClientIx, agent: AgentIx, available: &Resources, now: Timestamp) -> bool {
        let of_pair = self.0.iter().filter(|(c, a, ..)| (*c, *a) == (client, agent));
        of_pair.into_iter().any(|(_, _, refused, until)| *until > now && refused.contains(available))
    }

    fn add(&mut self, client: ClientIx, agent: AgentIx, refused: Resources, until: Timestamp) {
        self.0
            .retain(|(c, a, old, end)| (*c, *a) != (client, agent) || *end > until || !refused.contains(old));
        self.0.push((client, agent, refused, until));
    }

    fn expire(&mut self, now: Timestamp) -> Vec<(ClientIx, AgentIx)> {
        let ended = self.0.iter().filter(|(.., until)| *until <= now);
        let mut ended: Vec<_> = ended.map(|(client, agent, ..)| (*client, *agent)).collect();
        self.0.retain(|(.., until)| *until > now);
        ended.sort_unstable();
        ended
    }
}

#[derive(Debug, Clone)]
enum Step {
    Refuse { client: usize, agent: usize, cpus: i64, mem: i64, millis: u64 },
    Ask { client: usize, agent: usize, cpus: i64, mem: i64 },
    Wait { millis: u64 },
    ClearClient(usize),
    ClearAgent(usize),
}

/// Neighbours, and agents of other rows and pages.
fn agent() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..6, 60_usize..70, 1020_usize..1030, 50_000_usize..50_003]
}

fn step() -> impl Strategy<Value = Step> {
    let (client, cpus, mem) = (|| 0_usize..4, || 0_i64..4, || 0_i64..4);
    prop_oneof![
        8 => (client(), agent(), cpus(), mem(), 1_u64..20)
            .prop_map(|(client, agent, cpus, mem, millis)| Step::Refuse { client, agent, cpus, mem, millis }),
        8 => (client(), agent(), cpus(), mem())
            .prop_map(|(client, agent, cpus, mem)| Step::Ask { client, agent, cpus, mem }),
        3 => (0_u64..6).prop_map(|millis| Step::Wait { millis }),
        1 => client().prop_map(Step::ClearClient),
        1 => agent().prop_map(Step::ClearAgent),
    ]
}

fn resources(cpus: i64, mem: i64) -> Resources {
    Resources::new().with_scalar("cpus", cpus).unwrap().with_scalar("mem", mem).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn filters_answer_as_a_list_of_them_would(steps in prop::collection::vec(step(), 0..300)) {
        let (mut filters, mut list, mut now) = (Filters::default(), List::default(), Timestamp(0));
        for step in steps {
            match step {
                Step::Refuse { client, agent, cpus, mem, millis } => {
                    let (client, agent, until) = (ClientIx(client), AgentIx(agent), Timestamp(now.0 + millis));
                    filters.add(client, agent, resources(cpus, mem), until);
                    list.add(client, agent, resources(cpus, mem), until);
                }
                Step::Ask { client, agent, cpus, mem } => {
                    let (client, agent, asked) = (ClientIx(client), AgentIx(agent), resources(cpus, mem));
                    let expected = list.block(client, agent, &asked, now);
                    prop_assert_eq!(filters.block(client, agent, &asked, now), expected);
                }
                Step::Wait { millis } => {
                    now.0 += millis;
                    let mut ended = filters.expire(now);
                    ended.sort_unstable();
                    prop_assert_eq!(ended, list.expire(now));
                }
                Step::ClearClient(client) => {
                    filters.clear_client(ClientIx(client));
                    list.0.retain(|(c, ..)| *c != ClientIx(client));
                }
                Step::ClearAgent(agent) => {
                    filters.clear_agent(AgentIx(agent));
                    list.0.retain(|(_, a, ..)| *a != AgentIx(agent));
                }
            }
            prop_assert_eq!(filters.next_end(), list.0.iter().map(|(.., until)| *until).min());
            prop_assert_eq!(filters.check(), Ok(()));
        }
    }
}

#[test]
fn of_too_many_filters_on_one_agent_the_one_that_ends_first_is_forgotten() {
    let (mut filters, now) = (Filters::default(), Timestamp(0));
    let most = i64::try_from(MOST_PER_PAIR).unwrap();
    // None of them covers another.
    let refused = |n: i64| resources(n, most - n);
    for n in 0..=most {
        filters.add(ClientIx(0), AgentIx(3), refused(n), Timestamp(100 + n.unsigned_abs()));
    }
    let blocked: Vec<i64> =
        (0..=most).filter(|n| filters.block(ClientIx(0), AgentIx(3), &refused(*n), now)).collect();
    assert_eq!(blocked, (1..=most).collect::<Vec<_>>());
    assert_eq!(filters.check(), Ok(()));
}

#[test]
fn what_was_cleared_is_given_back_step_by_step() {
    let mut filters = Filters::default();
    for agent in 0..100_000 {
        let refused = resources(i64::try_from(agent).unwrap(), 0);
        filters.add(ClientIx(0), AgentIx(agent), refused, Timestamp(100));
    }
    filters.clear_client(ClientIx(0));
    assert_eq!(filters.next_end(), None);
    let steps = (0..).take_while(|_| {
        filters.expire(Timestamp(0));
        !filters.cleared.is_empty()
    });
    assert!((5_000..8_000).contains(&steps.count()), "100,000 groups, 16 at each step");
    assert!(filters.on_agent.iter().all(|count| *count == 0));
    assert_eq!(filters.check(), Ok(()));
}

/// Bytes per filter of 50 clients that refuse 4,000 agents each.
fn bytes_per_filter(filter: impl Fn(usize, usize) -> (Resources, Timestamp)) -> f64 {
    let (clients, agents) = (50, 4000);
    let mut filters = Filters::default();
    for agent in 0..agents {
        for client in 0..clients {
            let (refused, until) = filter(client, agent);
            filters.add(ClientIx(client), AgentIx(agent), refused, until);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let per_filter = filters.bytes() as f64 / (clients * agents) as f64;
    per_filter
}

#[test]
fn a_filter_like_no_other_takes_less_than_32_bytes() {
    let per_filter = bytes_per_filter(|client, agent| {
        let refused = resources(i64::try_from(agent).unwrap(), 1 << 30);
        (refused, Timestamp(u64::try_from(client + 1000 * agent).unwrap()))
    });
    assert!(per_filter <= 32.0, "{per_filter} bytes");
}

#[test]
fn filters_alike_take_less_than_a_byte() {
    let per_filter = bytes_per_filter(|_, _| (resources(8000, 2 << 30), Timestamp(1_000)));
    assert!(per_filter <= 0.6, "{per_filter} bytes");
}
