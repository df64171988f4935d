//! Range sets against sets of numbers.

use std::collections::BTreeSet;

use divvy_proto::RangeSet;
use proptest::prelude::*;

/// Few numbers, so that ranges touch and overlap; some at the very end of what there is.
fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let low = (0..40_u32, 0..6_u32).prop_map(|(first, more)| (first, first + more));
    let high = (0..10_u32, 0..6_u32)
        .prop_map(|(back, more)| (u32::MAX - back, (u32::MAX - back).saturating_add(more)));
    prop::collection::vec(prop_oneof![4 => low, 1 => high], 0..10)
}

fn set(ranges: &[(u32, u32)]) -> RangeSet {
    RangeSet::from_ranges(ranges.iter().copied())
}

fn model(ranges: &[(u32, u32)]) -> BTreeSet<u32> {
    ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
}

/// Has to hold exactly these numbers, in as few ranges as can be, ascending.
fn same(set: &RangeSet, model: &BTreeSet<u32>) -> Result<(), TestCaseError> {
    prop_assert_eq!(&set.iter().collect::<BTreeSet<u32>>(), model);
    prop_assert_eq!(set.count(), model.len() as u64);
    prop_assert_eq!(set.is_empty(), model.is_empty());
    let ranges: Vec<(u32, u32)> = set.ranges().collect();
    prop_assert!(ranges.iter().all(|(first, last)| first <= last));
    let apart = |pair: &[(u32, u32)]| u64::from(pair[0].1) + 1 < u64::from(pair[1].0);
    prop_assert!(ranges.windows(2).all(apart), "{:?} is not sorted, disjoint and coalesced", ranges);
    Ok(())
}

proptest! {
    #[test]
    fn operations_do_what_they_do_to_sets(a in ranges(), b in ranges()) {
        let (x, y) = (set(&a), set(&b));
        let (m, n) = (model(&a), model(&b));
        same(&x, &m)?;
        same(&x.union(&y), &m.union(&n).copied().collect())?;
        same(&x.intersection(&y), &m.intersection(&n).copied().collect())?;
        same(&x.difference(&y), &m.difference(&n).copied().collect())?;
        prop_assert_eq!(x.contains(&y), n.is_subset(&m));
        prop_assert_eq!(x.intersects(&y), !m.is_disjoint(&n));
        prop_assert_eq!(x == y, m == n);
    }

    #[test]
    fn the_lowest_are_taken(a in ranges(), count in 0..30_usize) {
        let lowest: BTreeSet<u32> = model(&a).into_iter().take(count).collect();
        match set(&a).take_lowest(count) {
            Some(taken) => { prop_assert_eq!(lowest.len(), count); same(&taken, &lowest)?; }
            None => prop_assert!(lowest.len() < count),
        }
    }

    #[test]
    fn text_and_json_come_back(a in ranges()) {
        let set = set(&a);
        prop_assert_eq!(&set.to_string().parse::<RangeSet>().unwrap(), &set);
        prop_assert_eq!(&serde_json::from_value::<RangeSet>(serde_json::to_value(&set).unwrap()).unwrap(), &set);
    }

    #[test]
    fn any_text_is_ranges_or_an_error(text in "\\[?[0-9, -]{0,12}\\]?") {
        if let Ok(set) = text.parse::<RangeSet>() {
            prop_assert_eq!(&set.to_string().parse::<RangeSet>().unwrap(), &set);
        }
    }
}

#[test]
fn taking_from_a_huge_set_takes_no_time() {
    let all = RangeSet::range(0, u32::MAX);
    assert_eq!(all.take_lowest(1 << 32), Some(all.clone()));
    assert_eq!(all.take_lowest((1 << 32) + 1), None);
    assert_eq!(all.take_lowest(usize::MAX), None);
}

#[test]
fn text_is_written_as_short_as_it_can_be() {
    let set: RangeSet = " [ 31003-31005 ,8080, 31000 - 31002,] ".parse().unwrap();
    assert_eq!(set.to_string(), "[8080,31000-31005]");
    assert_eq!(RangeSet::new().to_string(), "[]");
}

#[test]
fn bad_text_and_json_are_refused() {
    for text in ["", "1", "[1", "1]", "[a]", "[1-]", "[-1]", "[1-2-3]", "[5-3]", "[4294967296]", "[1.5]"] {
        assert!(text.parse::<RangeSet>().is_err(), "{text} is taken");
    }
    for json in ["[[5,3]]", "[[1]]", "[1]", "[[-1,2]]", "[[1,4294967296]]"] {
        assert!(serde_json::from_str::<RangeSet>(json).is_err(), "{json} is taken");
    }
}
