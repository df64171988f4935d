//! A framework that keeps a few tasks alive until an operator tears it down.

use divvy_proto::quantity::{Bytes, Cpus};
use divvy_sdk::{Actions, Offer, Scheduler, TaskSpec, View};

/// How many tasks it wants.
const WANTED: usize = 4;

#[derive(Debug)]
pub struct Guest;

impl Scheduler for Guest {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let spec = TaskSpec::shell("stay")
            .named("guest")
            .cpus(Cpus::from_millis(250).expect("cpus"))
            .mem(Bytes::mib(32));
        let missing = WANTED.saturating_sub(view.live());
        let fitting = offers.into_iter().filter(|offer| offer.fits(&spec)).take(missing);
        fitting.map(|offer| offer.launch(&spec)).collect::<Actions>().needs_offers(missing > 0)
    }
}
