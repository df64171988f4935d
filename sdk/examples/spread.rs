//! Keeps one copy of a command on each of three machines, of those whose kernel is new enough, and asks for nothing else:
//!
//!     cargo run --example spread -p divvy-sdk
//!
//! The kernel of the cluster knows what is wanted, so it offers that and no more, to whoever else wants something too, and it
//! can say why it waits: `divvy explain framework spread`.

use divvy_sdk::placement::{Placement, place};
use divvy_sdk::{Actions, Constraint, Framework, Offer, Scheduler, Task, TaskSpec, View};

/// So many copies of this.
struct Spread {
    want: u32,
    spec: TaskSpec,
}

impl Scheduler for Spread {
    fn reconcile(&mut self, view: &View, mut offers: Vec<Offer>) -> Actions {
        let live: Vec<&Task> = view.tasks().filter(|task| task.is_live()).collect();
        // A drain or a preemption: others are wanted in their place, and the kernel ends them at its deadline.
        let leaving = live.iter().filter(|task| view.wanted_back(task.id()).is_some()).count();
        let staying = u32::try_from(live.len() - leaving).unwrap_or(u32::MAX);
        let mut missing = self.want.saturating_sub(staying);
        while missing > 0
            && let Some(at) = place(&self.spec, &live, view, &offers)
            && offers.get_mut(at).is_some_and(|offer| offer.take_next(&self.spec).is_ok())
        {
            missing -= 1;
        }
        let shape = Placement::new(&self.spec, &live, view, &offers).shape("copy", missing);
        // What is not used is declined for us.
        let mut actions: Actions = offers.into_iter().map(Offer::accept).collect();
        actions.want_nothing(); // but this:
        actions.want(view.role(), shape);
        actions
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let one_per_machine = Constraint::Unique { attribute: "hostname".to_owned() };
    let spec = TaskSpec::shell("sleep 60")
        .named("copy")
        .constraint(r#"!exists(kernel) || version(kernel) >= "5.4""#.parse()?);
    let spec = TaskSpec { constraints: vec![one_per_machine], ..spec };
    Ok(Framework::new("spread", Spread { want: 3, spec }).run().await?)
}
