//! What of one agent is reserved, and the volumes made of it: how that divides the agent into pools, and what a reservation,
//! a volume, and the end of either take from which pool and give to which.
//!
//! A volume's disk is in no pool: it is spent, and returns to its pool when the volume ends.
//!
//! Not here: what tasks and offers hold of the pools. Whoever applies a change has looked that its `takes` are free.

use std::collections::BTreeMap;

use divvy_proto::Invalid;
use divvy_proto::agent::AgentInfo;
use divvy_proto::ids::{Principal, VolumeId};
use divvy_proto::quantity::Bytes;
use divvy_proto::reservation::{Reservation, Reserved, Volume};
use divvy_proto::resources::{Resources, Shortage};
use divvy_proto::role::RolePath;

use super::allocator::Charge;

/// What the registry has of an agent beside what its command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Each stack once, sorted, nothing empty, without the disk of volumes; the innermost of each is not fixed.
    pub(super) reserved: Vec<Reserved>,
    pub(super) volumes: BTreeMap<VolumeId, Volume>,
}

/// An agent's resources by pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) total: Charge,
    /// What is reserved, or a volume's, and what the agent no longer has: it came back smaller.
    pub(super) missing: Vec<Reserved>,
}

/// The record of an agent is far smaller than what a store takes (etcd: 1.5 MiB): some hundred volumes or reservations.
const MOST_BYTES: usize = 256 << 10;

/// One change of what is reserved, or of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What has to be free, and is in these pools no longer.
    pub(super) takes: Charge,
    /// What is in these pools instead.
    pub(super) gives: Charge,
    volume: OfVolume,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OfVolume {
    Nothing,
    Put(Box<Volume>),
    Remove(VolumeId),
}

/// The resources under these reservations; unreserved under none.
pub(super) fn pool(stack: &[Reservation], resources: Resources) -> Charge {
    if stack.is_empty() {
        return Charge::unreserved(resources);
    }
    let piece = Reserved { stack: stack.to_vec(), resources };
    Charge::new().with_reserved([piece]).unwrap_or_default()
}

/// Why `from` does not hold `wanted`: in which pool (no reservation is the unreserved one), and what it lacks.
pub(super) fn shortage<'a>(from: &Charge, wanted: &'a Charge) -> Option<(&'a [Reservation], Shortage)> {
    let nothing = Resources::new();
    let of_piece = |piece: &'a Reserved| {
        let mine = from.under(&piece.stack).unwrap_or(&nothing);
        Some((piece.stack.as_slice(), mine.shortage(&piece.resources)?))
    };
    let none: &[Reservation] = &[];
    let unreserved = from.unreserved.shortage(&wanted.unreserved).map(|shortage| (none, shortage));
    unreserved.or_else(|| wanted.reserved.iter().find_map(of_piece))
}

/// The same reservations, whoever made them.
pub(super) fn is_alike(left: &Reservation, right: &Reservation) -> bool {
    left.role == right.role && left.labels == right.labels
}

impl Change {
    /// Sets aside what `from` holds (unreserved, if that is empty), as one more reservation.
    pub(super) fn reserve(from: &[Reservation], reservation: Reservation, resources: Resources) -> Self {
        let mut to = from.to_vec();
        to.push(reservation);
        Self { takes: pool(from, resources.clone()), gives: pool(&to, resources), volume: OfVolume::Nothing }
    }

    /// Undoes the innermost reservation.
    pub(super) fn unreserve(stack: &[Reservation], resources: Resources) -> Self {
        let to = stack.split_last().map_or(stack, |(_, outer)| outer);
        Self { takes: pool(stack, resources.clone()), gives: pool(to, resources), volume: OfVolume::Nothing }
    }

    pub(super) fn create(volume: Volume) -> Self {
        let takes = pool(&volume.stack, disk(volume.size));
        Self { takes, gives: Charge::new(), volume: OfVolume::Put(Box::new(volume)) }
    }

    pub(super) fn destroy(volume: &Volume) -> Self {
        let gives = pool(&volume.stack, disk(volume.size));
        Self { takes: Charge::new(), gives, volume: OfVolume::Remove(volume.id.clone()) }
    }

    /// The volume that it ends.
    pub(super) fn ends(&self) -> Option<&VolumeId> {
        match &self.volume {
            OfVolume::Remove(id) => Some(id),
            OfVolume::Nothing | OfVolume::Put(_) => None,
        }
    }

    pub(super) fn resize(volume: &Volume, size: Bytes) -> Self {
        let more = |from: Bytes, to: Bytes| {
            let by = Bytes::from_bytes(to.bytes().saturating_sub(from.bytes()).max(0)).unwrap_or_default();
            pool(&volume.stack, disk(by))
        };
        let resized = Volume { size, ..volume.clone() };
        Self {
            takes: more(volume.size, size),
            gives: more(size, volume.size),
            volume: OfVolume::Put(Box::new(resized)),
        }
    }
}

fn disk(size: Bytes) -> Resources {
    Resources::new().with_disk(size)
}

impl Holdings {
    pub(super) fn is_empty(&self) -> bool {
        self.reserved.is_empty() && self.volumes.is_empty()
    }

    /// As the registry keeps them.
    pub(super) fn from_record(reserved: Vec<Reserved>, volumes: Vec<Volume>) -> Self {
        let reserved = Charge::new().with_reserved(reserved).unwrap_or_default().reserved;
        Self { reserved, volumes: volumes.into_iter().map(|volume| (volume.id.clone(), volume)).collect() }
    }

    /// Makes a change of which somebody has seen that it can be made.
    ///
    /// # Errors
    /// What is given could not be added to what is there: a sum leaves the range of quantities, or the record of the agent would
    /// be larger than any honest use needs.
    pub(super) fn changed(self, change: &Change) -> Result<Self, Invalid> {
        let before = self.weight();
        let Self { reserved, mut volumes } = self;
        let is_ours = |piece: &&Reserved| piece.stack.last().is_some_and(|innermost| !innermost.fixed);
        let gives = change.gives.reserved.iter().filter(is_ours).cloned();
        let left = Charge { reserved, ..Charge::new() }.saturating_sub(&change.takes);
        let reserved = left.with_reserved(gives).ok_or_else(|| {
            let found = change.gives.total();
            Invalid::new("resources", found, "what can be reserved beside what is reserved")
        })?;
        match &change.volume {
            OfVolume::Nothing => {}
            OfVolume::Put(volume) => drop(volumes.insert(volume.id.clone(), (**volume).clone())),
            OfVolume::Remove(id) => drop(volumes.remove(id)),
        }
        let changed = Self { reserved: reserved.reserved, volumes };
        let after = changed.weight();
        if after > MOST_BYTES && after > before {
            let expected = format!("at most {MOST_BYTES} bytes of reservations and volumes of one agent");
            return Err(Invalid::new("reservations", format!("{after} bytes"), expected));
        }
        Ok(changed)
    }

    /// About how many bytes the registry needs for it.
    fn weight(&self) -> usize {
        let of_labels = |labels: &BTreeMap<String, String>| -> usize {
            labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum()
        };
        let of_one = |one: &Reservation| one.role.as_str().len() + of_labels(&one.labels) + 320;
        let of_stack = |stack: &[Reservation]| stack.iter().map(of_one).sum::<usize>();
        let reserved = self.reserved.iter();
        let reserved = reserved.map(|piece| of_stack(&piece.stack) + piece.resources.to_string().len() + 64);
        let volumes = self.volumes.values().map(|volume| of_stack(&volume.stack) + 512);
        reserved.chain(volumes).sum()
    }

    /// Divides the agent: what its command line reserves, then volumes (they are on its disk already), then the rest, each as
    /// far as there is any.
    pub(super) fn divide(&self, info: &AgentInfo) -> Division {
        let mut left =
            Charge { revocable: info.revocable.clone(), ..Charge::unreserved(info.resources.clone()) };
        let mut division = Division::default();
        let mut made = Vec::new();
        for fixed in &info.reserved {
            let found = carve(&mut left, &[], fixed, &mut division.missing);
            made.push(Reserved { stack: fixed.stack.clone(), resources: found });
        }
        // Out of these come the refined ones.
        left = left.clone().with_reserved(made).unwrap_or(left);
        for volume in self.volumes.values() {
            let piece = Reserved { stack: volume.stack.clone(), resources: disk(volume.size) };
            carve(&mut left, root(&volume.stack), &piece, &mut division.missing);
        }
        let mut refined = Vec::new();
        for piece in &self.reserved {
            let found = carve(&mut left, root(&piece.stack), piece, &mut division.missing);
            refined.push(Reserved { stack: piece.stack.clone(), resources: found });
        }
        division.total = left.clone().with_reserved(refined).unwrap_or(left);
        division
    }
}

/// The fixed reservation on which a stack stands, if it stands on one.
fn root(stack: &[Reservation]) -> &[Reservation] {
    match stack.first() {
        Some(first) if first.fixed => stack.get(..1).unwrap_or_default(),
        _ => &[],
    }
}

/// Takes as much of a piece as there is out of the pool, and notes what is missing. If a fixed reservation is no longer on the
/// command line, what stood on it stands on what is unreserved.
fn carve(
    left: &mut Charge,
    from: &[Reservation],
    piece: &Reserved,
    missing: &mut Vec<Reserved>,
) -> Resources {
    let from = if left.under(from).is_some() { from } else { &[] };
    let there = left.under(from).unwrap_or(&left.unreserved);
    let lacking = piece.resources.saturating_sub(there);
    let found = piece.resources.saturating_sub(&lacking);
    if !lacking.is_empty() {
        missing.push(Reserved { stack: piece.stack.clone(), resources: lacking });
    }
    *left = left.saturating_sub(&pool(from, found.clone()));
    found
}

/// Checks what an agent's command line reserves.
///
/// # Errors
/// A reservation is not one fixed one, is for `*`, stands twice, or all together are more than the agent has.
pub(super) fn check_fixed(info: &AgentInfo) -> Result<(), Invalid> {
    let mut left = info.resources.clone();
    for (at, piece) in info.reserved.iter().enumerate() {
        let field = |name: &str| format!("register.agent.reserved[{at}].{name}");
        let [reservation] = piece.stack.as_slice() else {
            return Err(Invalid::new(field("stack"), piece.stack.len(), "one reservation"));
        };
        check_role(&reservation.role).map_err(|invalid| invalid.within(field("stack[0]")))?;
        if !reservation.fixed {
            return Err(Invalid::new(field("stack[0].fixed"), false, "true"));
        }
        if info.reserved.iter().take(at).any(|earlier| earlier.stack == piece.stack) {
            return Err(Invalid::new(field("stack"), &reservation.role, "each reservation once"));
        }
        left = left.checked_sub(&piece.resources).ok_or_else(|| {
            let expected = format!("at most what is left of the agent's resources, {left}");
            Invalid::new(field("resources"), &piece.resources, expected)
        })?;
    }
    Ok(())
}

/// Whether something can be reserved for this role.
pub(super) fn check_role(role: &RolePath) -> Result<(), Invalid> {
    match *role == RolePath::default() {
        true => Err(Invalid::new("role", role, "a role other than `*`, from which nothing is set aside")),
        false => Ok(()),
    }
}

/// A reservation as people read it: `eng/ads (rack=r1)`; what it refines is left out.
pub(super) fn show_owner(stack: &[Reservation]) -> String {
    let Some(owner) = stack.last() else { return "unreserved".to_owned() };
    let labels: Vec<String> = owner.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match labels.is_empty() {
        true => format!("reserved for {}", owner.role),
        false => format!("reserved for {} ({})", owner.role, labels.join(",")),
    }
}

/// A reservation that an operator or a framework makes.
pub(super) fn reservation(
    role: &RolePath,
    principal: Option<&Principal>,
    labels: BTreeMap<String, String>,
) -> Reservation {
    Reservation { role: role.clone(), principal: principal.cloned(), labels, fixed: false }
}
