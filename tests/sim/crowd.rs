//! The frameworks that crowd the cluster beside the planners of this tree: each wants in another way, and none keeps more than
//! the driver does.
//!
//! | kind | what it does |
//! |---|---|
//! | guest | keeps a few tasks alive on classic offers, until an operator tears it down |
//! | picky | states demand: several shapes with constraints, spread and packed, in one role or two |
//! | crew | states a gang and launches it whole; two crews want more than half of the cluster each |
//! | burst | wants a lot for a while and then less; ends what is asked back, or does not |
//! | miser | takes classic offers and declines all of them |
//! | keeper | reserves, makes volumes, has tasks use them, and undoes it all again |
//! | forger | launches tasks under ids that it has used before |

use std::time::Duration;

use divvy_proto::demand::Preference;
use divvy_proto::ids::VolumeId;
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::reservation::VolumeMount;
use divvy_proto::resources::Resources;
use divvy_proto::time::Timestamp;
use divvy_sdk::{Accept, Actions, Offer, Scheduler, Task, TaskId, TaskSpec, View};

use crate::framework::{BURST, CREW, FORGER, GUEST, KEEPER, MISER, PICKY, RIVAL};
use crate::script::BEHAVIOUR;

/// A framework of the crowd.
#[derive(Debug)]
pub struct Crowd {
    kind: usize,
    /// Draws its taste: the same in each life of it.
    taste: u64,
    /// It wants nothing any more, and ends what does not end by itself.
    pub resting: bool,
}

impl Crowd {
    pub fn new(kind: usize, taste: u64, resting: bool) -> Self {
        Self { kind, taste, resting }
    }

    /// One of so many, by its taste.
    fn choice(&self, nth: u32, of: u64) -> u64 {
        (self.taste >> (nth * 5)) % of
    }
}

impl Scheduler for Crowd {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let mut actions = match self.kind {
            GUEST => guest(view, offers),
            PICKY => self.picky(view, offers),
            CREW | RIVAL => self.crew(view, offers),
            BURST => self.burst(view, offers),
            MISER => Actions { refuse: Some(seconds(1 + self.choice(0, 10))), ..Actions::none() },
            KEEPER => self.keeper(offers),
            FORGER => self.forger(view, offers),
            _ => Actions::none(),
        };
        if self.resting && self.kind != GUEST && self.kind != KEEPER {
            actions.demand = None;
            actions.want_nothing();
        }
        // Under another id nobody is told apart; under its own it may come back as somebody else.
        actions.forget.extend(view.tasks().filter(|task| !task.is_live()).map(|task| task.id().clone()));
        actions
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec(name: &str, millis: i64, mib: u32, behaviour: &str) -> TaskSpec {
    TaskSpec::shell("work")
        .named(name)
        .cpus(Cpus::from_millis(millis).expect("cpus"))
        .mem(Bytes::mib(mib))
        .env(BEHAVIOUR, behaviour)
}

fn fresh(name: &str, offer: &Offer) -> TaskId {
    TaskId::new(format!("{name}-{}-{}", offer.id(), offer.taken().len())).expect("an id")
}

/// Takes at most so many; how many it took.
fn take(offer: &mut Offer, spec: &TaskSpec, most: u32) -> u32 {
    let mut taken = 0;
    while taken < most && offer.take(fresh(&spec.name, offer), spec).is_ok() {
        taken += 1;
    }
    taken
}

fn live_of<'a>(view: &'a View, name: &'a str) -> impl Iterator<Item = &'a Task> {
    view.tasks().filter(move |task| task.is_live() && task.info.name == name)
}

fn lacking(view: &View, name: &str, wanted: u32) -> u32 {
    wanted.saturating_sub(u32::try_from(live_of(view, name).count()).unwrap_or(u32::MAX))
}

fn guest(view: &View, offers: Vec<Offer>) -> Actions {
    let spec = spec("guest", 250, 32, "");
    let missing = 4_usize.saturating_sub(view.live());
    let fitting = offers.into_iter().filter(|offer| offer.fits(&spec)).take(missing);
    fitting.map(|offer| offer.launch(&spec)).collect::<Actions>().needs_offers(missing > 0)
}

/// Demand with constraints and preferences.
impl Crowd {
    /// What it wants: a spec, how many, and which agents first.
    fn shapes(&self) -> Vec<(TaskSpec, u32, Preference)> {
        let count = |nth, of: u64| u32::try_from(1 + self.choice(nth, of)).expect("a few");
        let constraint = ["rack == \"r1\"", "ssd >= 2 || version(kernel) >= \"6.1\"", "!exists(slow)"]
            [usize::try_from(self.choice(0, 3)).expect("an index")];
        let mut bound = spec("bound", 500, 64, "ends");
        bound.constraint = Some(constraint.parse().expect("a predicate"));
        let packed = spec("packed", 250 * (1 + i64::from(count(1, 4))), 128, "ends");
        let spread = spec("spread", 250, 32, "ends").port("http");
        let by = if self.choice(2, 2) == 0 { "rack" } else { "hostname" };
        vec![
            (bound, count(3, 3), Preference::None),
            (packed, count(4, 3), Preference::Pack),
            (spread, count(5, 4), Preference::Spread(by.to_owned())),
        ]
    }

    fn picky(&self, view: &View, offers: Vec<Offer>) -> Actions {
        let shapes = self.shapes();
        let mut missing: Vec<u32> =
            shapes.iter().map(|(spec, wanted, _)| lacking(view, &spec.name, *wanted)).collect();
        let mut actions = Actions { refuse: Some(seconds(1 + self.choice(6, 8))), ..Actions::none() };
        for mut offer in offers {
            let Some((name, count)) = offer.demand().map(|demand| (demand.shape.clone(), demand.count))
            else {
                continue;
            };
            let Some(at) = shapes.iter().position(|(spec, ..)| spec.name == name) else { continue };
            missing[at] -= take(&mut offer, &shapes[at].0, missing[at].min(count));
            actions.accept(offer.accept());
        }
        actions.want_nothing();
        for (at, ((spec, _, preference), missing)) in shapes.into_iter().zip(missing).enumerate() {
            let mut shape = spec.shape(spec.name.clone(), missing);
            shape.preference = preference;
            actions.want(&view.roles()[at % view.roles().len()], shape);
        }
        actions
    }

    /// A gang at a time.
    fn crew(&self, view: &View, offers: Vec<Offer>) -> Actions {
        let member = spec("crew", 500 * (2 + i64::try_from(self.choice(0, 4)).expect("few")), 128, "ends");
        let size = u32::try_from(2 + self.choice(1, 4)).expect("few");
        let mut actions = Actions::none();
        let mut gang = Vec::new();
        for mut offer in offers {
            if let Some(demand) = offer.demand().filter(|demand| demand.gang.is_some()).cloned() {
                take(&mut offer, &member, demand.count);
                gang.push(offer.accept());
            }
        }
        let whole = gang.iter().flat_map(Accept::launches).count() == size as usize && view.live() == 0;
        if whole {
            actions.accept(Accept::together(gang));
        }
        actions.want_nothing();
        if !whole && view.live() == 0 {
            let hold = seconds(5 + self.choice(2, 20));
            actions.want_together(&view.roles()[0], [member.shape("crew", size)], hold);
        }
        actions
    }

    /// Two minutes of much, two minutes of little.
    fn burst(&self, view: &View, offers: Vec<Offer>) -> Actions {
        const HALF: u64 = 120_000;
        let member = spec("burst", 500, 64, "");
        let little = (view.now().0 / HALF).is_multiple_of(2) && self.choice(0, 2) == 0;
        let wanted = match (self.resting, little) {
            (true, _) => 0,
            (_, true) => 3,
            _ => 8 + u32::try_from(self.choice(1, 25)).expect("few"),
        };
        let mut missing = lacking(view, "burst", wanted);
        let mut actions = Actions::none();
        for mut offer in offers.into_iter().filter(|offer| offer.demand().is_some()) {
            let member = TaskSpec { priority: (offer.id().0 % 3) as i32, ..member.clone() };
            missing -= take(&mut offer, &member, missing);
            actions.accept(offer.accept());
        }
        actions.want_nothing();
        actions.want(&view.roles()[0], member.shape("burst", missing));
        let asked_back = view.inverse_offers().filter(|_| self.choice(2, 2) == 0);
        for inverse in asked_back {
            actions.accept_inverse(inverse.id);
            inverse.tasks.iter().for_each(|task| actions.kill(task.clone()));
        }
        let surplus = view.live().saturating_sub(wanted as usize);
        live_of(view, "burst").take(surplus).for_each(|task| actions.kill(task.id().clone()));
        actions.wake_at(Timestamp((view.now().0 / HALF + 1) * HALF));
        actions
    }
}

/// Classic offers.
impl Crowd {
    fn keeper(&self, offers: Vec<Offer>) -> Actions {
        let mut actions = Actions { refuse: Some(seconds(3 + self.choice(0, 10))), ..Actions::none() };
        for mut offer in offers.into_iter().filter(|offer| !offer.is_revocable()) {
            // What does not fit is left out: that is the offer's to say.
            let _ = if self.resting { tidy_up(&mut offer) } else { self.keep(&mut offer) };
            actions.accept(offer.accept());
        }
        actions
    }

    /// Does something with an offer that there is reason for.
    fn keep(&self, offer: &mut Offer) -> Result<(), divvy_proto::resources::Shortage> {
        let number = offer.id().0;
        let some: Resources = "cpus=0.25;mem=64MiB;disk=512MiB".parse().expect("resources");
        let part = Bytes::mib(128);
        let user = spec("keeper", 250, 64, "ends");
        match offer.volumes().first().cloned() {
            None if offer.reserved().is_empty() => {
                let labels = [("by".to_owned(), (number % 2).to_string())].into();
                let stack = offer.reserve_with(&some, &[], labels)?;
                let id = VolumeId::new(format!("v{number}")).expect("an id");
                offer.create(id.clone(), part, &stack)?;
                offer.take(fresh("keeper", offer), &using(user, &id))?;
            }
            None => match offer.reserved().first().cloned() {
                Some(piece) if number.is_multiple_of(2) => offer.unreserve(&piece.resources, &piece.stack)?,
                _ => drop(offer.take(fresh("keeper", offer), &user)?),
            },
            Some(volume) => match number % 5 {
                0 => offer.destroy(&volume.id)?,
                1 => offer.grow(&volume.id, part)?,
                2 => offer.shrink(&volume.id, Bytes::mib(16))?,
                _ => drop(offer.take(fresh("keeper", offer), &using(user, &volume.id))?),
            },
        }
        Ok(())
    }

    /// One task at a time, and most of the time not under a new id.
    fn forger(&self, view: &View, offers: Vec<Offer>) -> Actions {
        let spec = spec("forger", 100, 32, "ends");
        let mut actions = Actions { refuse: Some(seconds(1 + self.choice(0, 20))), ..Actions::none() };
        for mut offer in offers.into_iter().take(usize::from(view.live() == 0 && !self.resting)) {
            let number = offer.id().0;
            let id = match number % 4 {
                0 => format!("again-{}", number / 4 % 5),
                1 => format!("letters-{}-x", number / 4 % 3),
                2 => format!("new-{}", offer.id()),
                _ => format!("numbered.{}", number / 4 % 7),
            };
            let _ = offer.take(TaskId::new(id).expect("an id"), &spec);
            actions.accept(offer.accept());
        }
        actions
    }
}

fn using(mut spec: TaskSpec, volume: &VolumeId) -> TaskSpec {
    spec.volumes.push(VolumeMount { id: volume.clone(), path: "data".to_owned(), read_only: false });
    spec
}

fn tidy_up(offer: &mut Offer) -> Result<(), divvy_proto::resources::Shortage> {
    for volume in offer.volumes().to_vec() {
        offer.destroy(&volume.id)?;
    }
    for piece in offer.reserved().to_vec() {
        let own =
            piece.stack.last().is_some_and(|innermost| !innermost.fixed && innermost.role == *offer.role());
        if own {
            offer.unreserve(&piece.resources, &piece.stack)?;
        }
    }
    Ok(())
}
