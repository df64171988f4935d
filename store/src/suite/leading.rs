//! Leadership and its fencing token.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::{Fresh, done, key, put, value};
use crate::{Batch, Commit, Condition, Leadership, MAX_BATCH_BYTES, StoreError};

async fn campaign(store: &Fresh, who: &'static str) -> Leadership {
    store.campaign(&key("masters"), who.into()).await.unwrap()
}

async fn leader(store: &Fresh) -> Option<String> {
    let leader = store.leader(&key("masters")).await.unwrap()?;
    Some(String::from_utf8(leader.value.to_vec()).unwrap())
}

/// Whether a future is not ready, having been given a chance.
async fn waits<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// The second candidate waits for the first to resign.
pub async fn one_leads_at_a_time(store: Fresh) {
    assert_eq!(leader(&store).await, None);
    let first = campaign(&store, "first").await;
    let mut second = pin!(campaign(&store, "second"));
    assert!(waits(second.as_mut()).await);
    assert_eq!(leader(&store).await, Some("first".to_owned()));
    assert!(waits(second.as_mut()).await);

    first.resign().await;
    let second = second.await;
    assert_eq!(leader(&store).await, Some("second".to_owned()));
    second.resign().await;
    assert_eq!(leader(&store).await, None);
}

/// Each leader's token is above those of all before.
pub async fn tokens_rise(store: Fresh) {
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let leadership = campaign(&store, "somebody").await;
        let known = store.leader(&key("masters")).await.unwrap().unwrap();
        assert_eq!(known.fence, *leadership.fence());
        tokens.push(leadership.fence().token);
        leadership.resign().await;
    }
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

/// A fence holds from the campaign to its end and never again.
pub async fn a_deposed_leader_cannot_write(store: Fresh) {
    let fenced =
        |fence: &Condition, value: &'static str| Batch::new().when(fence.clone()).put(key("a"), value);
    let first = campaign(&store, "first").await;
    let old = Condition::Fence(first.fence().clone());
    done(&store, fenced(&old, "by the first")).await;

    first.resign().await;
    assert_eq!(store.commit(fenced(&old, "by nobody")).await.unwrap(), Commit::Conflict(old.clone()));
    let second = campaign(&store, "second").await;
    assert_eq!(store.commit(fenced(&old, "too late")).await.unwrap(), Commit::Conflict(old));
    assert_eq!(value(&store, "a").await, Some("by the first".to_owned()));
    done(&store, fenced(&Condition::Fence(second.fence().clone()), "by the second")).await;
    assert_eq!(value(&store, "a").await, Some("by the second".to_owned()));
}

/// A leadership that is dropped is resigned.
pub async fn a_dropped_leadership_passes_on(store: Fresh) {
    drop(campaign(&store, "first").await);
    let _second = campaign(&store, "second").await;
    assert_eq!(leader(&store).await, Some("second".to_owned()));
}

/// A candidate whose future is dropped does not win.
pub async fn who_gives_up_is_passed_over(store: Fresh) {
    let first = campaign(&store, "first").await;
    {
        let impatient = pin!(campaign(&store, "impatient"));
        assert!(waits(impatient).await);
    }
    let mut patient = pin!(campaign(&store, "patient"));
    assert!(waits(patient.as_mut()).await);
    first.resign().await;
    let _patient = patient.await;
    assert_eq!(leader(&store).await, Some("patient".to_owned()));
}

/// Names have nothing to do with each other, nor with keys of the same name.
pub async fn names_are_led_apart(store: Fresh) {
    put(&store, &[("masters", "a value")]).await;
    let masters = campaign(&store, "master").await;
    let others = store.campaign(&key("masters/others"), "other".into()).await.unwrap();
    assert_ne!(masters.fence(), others.fence());
    masters.resign().await;
    let fence = Condition::Fence(others.fence().clone());
    done(&store, Batch::new().when(fence)).await;
    assert_eq!(value(&store, "masters").await, Some("a value".to_owned()));
}

/// What a leader says of itself is as limited as any value.
pub async fn a_long_campaign_is_refused(store: Fresh) {
    let outcome = store.campaign(&key("masters"), vec![0; MAX_BATCH_BYTES + 1].into()).await;
    assert!(matches!(outcome, Err(StoreError::TooLarge { .. })));
    assert_eq!(leader(&store).await, None);
}
