//! Random clusters: whatever runs where, a preemption leaves every role what it is promised, ends nobody in vain, and is found
//! where there is one.

use std::collections::BTreeMap;

use divvy_proto::amounts::Amounts;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use proptest::prelude::*;

use super::*;

/// The last one starves.
const ROLES: [&str; 5] = ["a", "b", "c/x", "c/y", "prod"];
/// Those that may have a quota of their own.
const PROMISED: [&str; 5] = ["a", "b", "c", "c/x", "c/y"];

/// A task: which role, cpus, mem in GiB, priority.
type Task = (usize, i64, i64, i32);

#[derive(Debug, Clone)]
struct Scene {
    agents: Vec<Vec<Task>>,
    /// For each of `PROMISED`: cpus, mem in GiB if it is named, whether it is preemptible.
    quotas: Vec<Option<(i64, Option<i64>, bool)>>,
    wanted: (i64, i64),
    count: u32,
}

fn scene() -> impl Strategy<Value = Scene> {
    let tasks = prop::collection::vec((0..4_usize, 1..4_i64, 1..4_i64, 0..3), 1..7);
    let quota = prop::option::of((0..12_i64, prop::option::of(0..12_i64), prop::bool::weighted(0.8)));
    let quotas = prop::collection::vec(quota, PROMISED.len());
    (prop::collection::vec(tasks, 1..4), quotas, (1..7_i64, 1..7_i64), 1..4_u32)
        .prop_map(|(agents, quotas, wanted, count)| Scene { agents, quotas, wanted, count })
}

fn sized(cpus: i64, mem: i64) -> String {
    format!("cpus={cpus};mem={mem}GiB")
}

/// Everything runs, nothing is free, and nobody wants anything but the last role.
fn staged(scene: &Scene) -> Cluster {
    let mut cluster = Cluster::new();
    let frameworks: Vec<_> =
        ROLES.iter().map(|role| cluster.framework_in(&role.replace('/', "-"), &[role])).collect();
    let suppress = CallBody::Suppress { roles: Vec::new() };
    frameworks.iter().for_each(|framework| cluster.call(*framework, suppress.clone()));
    for (at, tasks) in scene.agents.iter().enumerate() {
        let all = |f: fn(&Task) -> i64| tasks.iter().map(f).sum::<i64>();
        let agent = cluster.agent(&sized(all(|task| task.1), all(|task| task.2)));
        for (nth, (role, cpus, mem, priority)) in tasks.iter().enumerate() {
            let framework = frameworks[*role];
            cluster.call(framework, CallBody::Revive { roles: Vec::new() });
            cluster.run(framework, agent, &[(&format!("t{at}-{nth}"), &sized(*cpus, *mem), *priority)]);
            cluster.call(framework, suppress.clone());
            cluster.decline(framework, secs(0));
        }
    }
    for (role, quota) in PROMISED.iter().zip(&scene.quotas) {
        if let Some((cpus, mem, preemptible)) = quota {
            let mem = mem.map_or(String::new(), |mem| format!(";mem={mem}GiB"));
            let guarantee = format!("cpus={cpus}{mem}").parse().unwrap();
            cluster.quota(role, Quota { guarantee, preemptible: *preemptible, ..Quota::default() });
        }
    }
    let (cpus, mem) = (scene.wanted.0 * 2, scene.wanted.1 * 2);
    cluster.promise("prod", &sized(cpus, mem));
    cluster.wants(frameworks[4], "prod", &sized(scene.wanted.0, scene.wanted.1), scene.count);
    cluster
}

/// A task that runs, as the kernel has it.
struct Running {
    agent: AgentId,
    role: RolePath,
    holds: Resources,
    is_asked_back: bool,
}

fn running(kernel: &Kernel) -> Vec<Running> {
    let keys =
        kernel.agents.iter().flat_map(|(id, agent)| agent.tasks.iter().map(move |key| (id.clone(), key)));
    let show = |(agent, key): (AgentId, &TaskKey)| {
        let task = kernel.task_ref(key).unwrap();
        let role = kernel.allocator.client_of(task.client).role.clone();
        let is_asked_back = kernel.inverse.of(key).is_some();
        Running { agent, role, holds: task.info.resources.clone(), is_asked_back }
    };
    keys.map(show).collect()
}

fn total<'a>(tasks: impl IntoIterator<Item = &'a Running>) -> Resources {
    tasks.into_iter().fold(Resources::new(), |all, task| all.checked_add(&task.holds).unwrap())
}

/// Whether every role keeps what it is promised, or all that it has, when these end.
fn keeps_promises(kernel: &Kernel, lost: &[&Running]) -> bool {
    let roles = PROMISED.iter().map(|role| role.parse::<RolePath>().unwrap());
    roles.into_iter().all(|role| {
        let lost = Amounts::from(&total(lost.iter().copied().filter(|task| role.contains(&task.role))));
        let had = kernel.allocator.consumed(&role);
        let guarantee = kernel.quota(&role).map(|quota| quota.quota.guarantee).unwrap_or_default();
        guarantee.iter().all(|(name, promised)| {
            let (had, lost) = (had.get(name).unwrap_or(0), lost.get(name).unwrap_or(0));
            lost == 0 || had - lost >= promised
        })
    })
}

fn is_preemptible(kernel: &Kernel, role: &RolePath) -> bool {
    role.lineage().iter().all(|role| kernel.quota(role).is_none_or(|quota| quota.quota.preemptible))
}

fn check(scene: &Scene) -> Result<(), TestCaseError> {
    let mut cluster = staged(scene);
    let wanted: Resources = sized(scene.wanted.0, scene.wanted.1).parse().unwrap();
    let tasks = running(&cluster.kernel);
    let mut by_agent: BTreeMap<AgentId, Vec<&Running>> = BTreeMap::new();
    tasks.iter().for_each(|task| by_agent.entry(task.agent.clone()).or_default().push(task));
    let victims: Vec<&Running> = tasks.iter().filter(|task| task.is_asked_back).collect();

    if victims.is_empty() {
        for (agent, tasks) in by_agent {
            let able: Vec<_> =
                tasks.into_iter().filter(|task| is_preemptible(&cluster.kernel, &task.role)).collect();
            let is_found =
                total(able.iter().copied()).contains(&wanted) && keeps_promises(&cluster.kernel, &able);
            prop_assert!(!is_found, "it would fit on {agent}");
        }
    } else {
        prop_assert!(victims.iter().all(|victim| victim.agent == victims[0].agent));
        prop_assert!(total(victims.iter().copied()).contains(&wanted));
        for spared in 0..victims.len() {
            let others =
                victims.iter().enumerate().filter(|(at, _)| *at != spared).map(|(_, victim)| *victim);
            prop_assert!(!total(others).contains(&wanted), "one ends in vain");
        }
    }

    // However many follow.
    cluster.advance(secs(10));
    let tasks = running(&cluster.kernel);
    let victims: Vec<&Running> = tasks.iter().filter(|task| task.is_asked_back).collect();
    prop_assert!(keeps_promises(&cluster.kernel, &victims));
    prop_assert!(victims.iter().all(|victim| is_preemptible(&cluster.kernel, &victim.role)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nobody_ends_in_vain_and_every_role_keeps_what_it_is_promised(scene in scene()) {
        check(&scene)?;
    }
}
