//! Keeps three copies of one command alive, wherever they fit:
//!
//!     cargo run --example keep_alive -p divvy-sdk
//!
//! It finds the master at `DIVVY_MASTER`, or at 127.0.0.1:5050, where `divvy dev` puts it.

use divvy_sdk::{Actions, Framework, Offer, Scheduler, TaskSpec, View};

/// So many copies of this.
struct KeepAlive {
    want: usize,
    spec: TaskSpec,
}

impl Scheduler for KeepAlive {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let missing = self.want.saturating_sub(view.live());
        offers
            .into_iter()
            .filter(|offer| offer.fits(&self.spec))
            .take(missing)
            .map(|offer| offer.launch(&self.spec)) // consumes the offer: it cannot be spent twice
            .collect::<Actions>() // the rest are declined for us
            .needs_offers(missing > 0) // until something ends
    }
}

#[tokio::main]
async fn main() -> Result<(), divvy_sdk::Error> {
    tracing_subscriber::fmt().init();
    let spec = TaskSpec::shell("sleep 30").named("sleeper");
    Framework::new("keep-alive", KeepAlive { want: 3, spec }).run().await
}
