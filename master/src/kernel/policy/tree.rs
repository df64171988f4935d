//! Whether promises and limits go together: what is promised below a role is within what the role itself is promised, and all
//! that is promised is there. Each refusal says the sum that does not work out.
//!
//! Not here: what anybody uses now.

use std::collections::BTreeMap;
use std::fmt;

use divvy_proto::Invalid;
use divvy_proto::amounts::Amounts;
use divvy_proto::quota::Quota;
use divvy_proto::role::RolePath;

/// Quotas by role.
pub(super) type Quotas = BTreeMap<RolePath, Quota>;

/// Why a quota is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Inconsistent {
    /// It contradicts itself.
    #[error(transparent)]
    Quota(#[from] Invalid),
    /// More is promised below a role than to it.
    #[error(
        "the roles below {role} would be promised {below}, more than {role}'s own guarantee of {most}: raise that first, or promise less"
    )]
    Guarantee { role: RolePath, below: Sum, most: String },
    /// More is promised below a role than it may use.
    #[error(
        "the roles below {role} would be promised {below}, more than {role}'s limit of {most}: raise that first, or promise less"
    )]
    Limit { role: RolePath, below: Sum, most: String },
    /// More is promised than there is.
    #[error(
        "{promised} would be promised in all, more than the cluster's {most}: add agents first, promise less, or force it"
    )]
    Cluster { promised: Sum, most: String },
}

/// What several roles are promised of one dimension: `cpus=12 (eng/ads 8, eng/web 4)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    dimension: String,
    parts: Vec<(RolePath, i64)>,
}

impl Sum {
    fn amount(&self) -> i64 {
        self.parts.iter().fold(0, |sum, (_, amount)| amount.saturating_add(sum))
    }
}

/// So many parts of a sum are named.
const NAMED: usize = 10;

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |amount| Amounts::show(&self.dimension, amount);
        let mut parts: Vec<String> =
            self.parts.iter().take(NAMED).map(|(role, amount)| format!("{role} {}", show(*amount))).collect();
        if let Some(more) = self.parts.len().checked_sub(NAMED).filter(|more| *more > 0) {
            parts.push(format!("and {more} more"));
        }
        write!(f, "{}={} ({})", self.dimension, show(self.amount()), parts.join(", "))
    }
}

/// Checks the quota of `role` as it stands among `quotas`, against those below it and those above it.
pub(super) fn check(quotas: &Quotas, role: &RolePath) -> Result<(), Inconsistent> {
    if let Some(quota) = quotas.get(role) {
        quota.check()?;
    }
    for above in role.lineage() {
        let Some(quota) = quotas.get(&above) else { continue };
        for (dimension, most) in quota.guarantee.iter() {
            let below = promised(quotas, Some(&above), dimension);
            if below.amount() > most {
                let most = Amounts::show(dimension, most);
                return Err(Inconsistent::Guarantee { role: above, below, most });
            }
        }
        // Where it is promised something itself, that is within its limit, and so is what is promised below it.
        let only_limited =
            quota.limit.iter().filter(|(dimension, _)| quota.guarantee.get(dimension).is_none());
        for (dimension, most) in only_limited {
            let below = promised(quotas, Some(&above), dimension);
            if below.amount() > most {
                let most = Amounts::show(dimension, most);
                return Err(Inconsistent::Limit { role: above, below, most });
            }
        }
    }
    Ok(())
}

/// Checks that the cluster has what is promised, where `quotas` promise more of something than `before`.
pub(super) fn check_cluster(quotas: &Quotas, before: &Quotas, cluster: &Amounts) -> Result<(), Inconsistent> {
    let mut dimensions: Vec<&str> =
        quotas.values().flat_map(|quota| quota.guarantee.iter()).map(|(dimension, _)| dimension).collect();
    dimensions.sort_unstable();
    dimensions.dedup();
    for dimension in dimensions {
        let all = promised(quotas, None, dimension);
        let most = cluster.get(dimension).unwrap_or_default();
        if all.amount() > most && all.amount() > promised(before, None, dimension).amount() {
            let most = format!("{dimension}={}", Amounts::show(dimension, most));
            return Err(Inconsistent::Cluster { promised: all, most });
        }
    }
    Ok(())
}

/// What is promised of a dimension below a role, or anywhere: the outermost promises, which hold those below them.
fn promised(quotas: &Quotas, below: Option<&RolePath>, dimension: &str) -> Sum {
    let named = |role: &RolePath| quotas.get(role).and_then(|quota| quota.guarantee.get(dimension));
    let is_below = |role: &RolePath| below.is_none_or(|above| above != role && above.contains(role));
    let is_outermost = |role: &RolePath| {
        let above = role.lineage();
        above.iter().all(|above| above == role || !is_below(above) || named(above).is_none())
    };
    let roles = quotas.keys().filter(|role| is_below(role) && is_outermost(role));
    let parts = roles.filter_map(|role| named(role).map(|amount| (role.clone(), amount)));
    Sum { dimension: dimension.to_owned(), parts: parts.collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(guarantee: &str, limit: &str) -> Quota {
        let (guarantee, limit) = (guarantee.parse().unwrap(), limit.parse().unwrap());
        Quota { guarantee, limit, ..Quota::default() }
    }

    fn quotas(all: &[(&str, &str, &str)]) -> Quotas {
        all.iter().map(|(role, guarantee, limit)| (role.parse().unwrap(), quota(guarantee, limit))).collect()
    }

    fn refusal(all: &[(&str, &str, &str)], role: &str) -> String {
        let found = check(&quotas(all), &role.parse().unwrap());
        found.map_or_else(|refused| refused.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn children_are_promised_no_more_than_their_parent() {
        let mut all = vec![("eng", "cpus=10", ""), ("eng/ads", "cpus=6", ""), ("eng/web", "cpus=4", "")];
        assert_eq!(refusal(&all, "eng/web"), "fine");
        all[1].1 = "cpus=8";
        let expected = "the roles below eng would be promised cpus=12 (eng/ads 8, eng/web 4), more than eng's own guarantee \
                        of 10: raise that first, or promise less";
        assert_eq!(["eng", "eng/ads", "eng/web"].map(|role| refusal(&all, role)), [expected; 3]);
    }

    #[test]
    fn a_promise_counts_towards_the_next_one_above_it_and_never_twice() {
        let all = [("a", "mem=8GiB", ""), ("a/b/c", "mem=8GiB", ""), ("a/b/c/d", "mem=8GiB", "")];
        assert_eq!(["a", "a/b", "a/b/c/d"].map(|role| refusal(&all, role)), ["fine"; 3]);
        let all = [("a", "", "cpus=3"), ("a/b/c", "cpus=4", "")];
        let expected = "the roles below a would be promised cpus=4 (a/b/c 4), more than a's limit of 3: raise that first, or \
                        promise less";
        assert_eq!(refusal(&all, "a/b/c"), expected);
        assert_eq!(refusal(&[("a", "cpus=2", "cpus=1")], "a"), {
            "quota.guarantee.cpus: \"2\" is not valid: expected at most the limit, 1"
        });
    }

    #[test]
    fn nothing_is_promised_that_is_not_there_but_less_may_be_promised_at_any_time() {
        let cluster: Amounts = "cpus=16;ports=100".parse().unwrap();
        let before = quotas(&[("eng", "cpus=12", "")]);
        let more = quotas(&[("eng", "cpus=12", ""), ("ops", "cpus=8", "")]);
        let found = check_cluster(&more, &before, &cluster).unwrap_err().to_string();
        let expected = "cpus=20 (eng 12, ops 8) would be promised in all, more than the cluster's cpus=16: add agents first, \
                        promise less, or force it";
        assert_eq!(found, expected);
        assert_eq!(check_cluster(&before, &more, &"cpus=1".parse().unwrap()), Ok(()));
    }

    /// The same by recursion over the tree: what each role and all below it are promised, at least and at most.
    fn by_recursion(quotas: &Quotas, cluster: i64) -> bool {
        fn below(quotas: &Quotas, at: &str) -> Result<i64, ()> {
            let depth = if at.is_empty() { 1 } else { at.split('/').count() + 1 };
            let paths = quotas.keys().map(RolePath::as_str);
            let inside = paths
                .filter(|path| at.is_empty() || path.strip_prefix(at).is_some_and(|r| r.starts_with('/')));
            let mut children: Vec<String> =
                inside.map(|path| path.split('/').take(depth).collect::<Vec<_>>().join("/")).collect();
            children.sort();
            children.dedup();
            let mut sum = 0;
            for child in children {
                let inner = below(quotas, &child)?;
                let own = quotas.get(&child.parse::<RolePath>().unwrap());
                let named =
                    |amounts: fn(&Quota) -> &Amounts| own.and_then(|quota| amounts(quota).get("cpus"));
                let (guarantee, limit) = (named(|q| &q.guarantee), named(|q| &q.limit));
                let promised = guarantee.unwrap_or(inner);
                if inner > promised || limit.is_some_and(|limit| promised > limit) {
                    return Err(());
                }
                sum += promised;
            }
            Ok(sum)
        }
        below(quotas, "").is_ok_and(|sum| sum <= cluster)
    }

    fn some_quotas() -> impl Strategy<Value = Vec<(RolePath, Quota)>> {
        let role = prop::sample::select(vec!["a", "a/b", "a/b/c", "a/b/d", "a/e", "a-f", "g", "g/h/i"]);
        let amount = |most: i64| prop::option::of((0..most).prop_map(|n| n * 1000));
        let named = |amount: Option<i64>| match amount {
            Some(amount) => Amounts::new().with("cpus", amount).unwrap(),
            None => Amounts::new(),
        };
        let quota = (amount(8), amount(12)).prop_map(move |(guarantee, limit)| Quota {
            guarantee: named(guarantee),
            limit: named(limit),
            ..Quota::default()
        });
        prop::collection::vec((role.prop_map(|role| role.parse().unwrap()), quota), 1..12)
    }

    proptest! {
        /// One quota after the other, each taken if the tree is consistent with it.
        #[test]
        fn a_quota_is_taken_if_and_only_if_the_tree_is_consistent_with_it(asked in some_quotas()) {
            let cluster: Amounts = "cpus=10".parse().unwrap();
            let mut tree = Quotas::new();
            for (role, quota) in asked {
                let mut with = tree.clone();
                with.insert(role.clone(), quota);
                let taken = check(&with, &role).and_then(|()| check_cluster(&with, &tree, &cluster));
                prop_assert_eq!(taken.is_ok(), by_recursion(&with, 10_000), "{:?}: {:?}", with, taken);
                if taken.is_ok() {
                    tree = with;
                }
                // Without one of them it is consistent, too.
                if let Some(gone) = tree.keys().next().cloned() {
                    let mut without = tree.clone();
                    without.remove(&gone);
                    prop_assert!(by_recursion(&without, 10_000));
                }
            }
        }
    }
}
