//! A leadership that was won, for as long as it stands.

use tokio::sync::{oneshot, watch};

use crate::store::Fence;

/// Tells the engine that a leadership is over; what it answers with resolves once others can win.
pub type Release = Box<dyn FnOnce() -> oneshot::Receiver<()> + Send + Sync>;

/// A leadership. Dropping it resigns.
#[must_use = "dropping a leadership resigns it"]
pub struct Leadership {
    fence: Fence,
    lost: watch::Receiver<bool>,
    release: Option<Release>,
}

impl Leadership {
    /// For engines: `lost` turns true when the leadership is over for any other reason than [`Leadership::resign`].
    pub fn new(fence: Fence, lost: watch::Receiver<bool>, release: Release) -> Self {
        Self { fence, lost, release: Some(release) }
    }

    /// To be a condition of each of the leader's writes.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Resolves when the leadership is over. A leader then stops at once; its fenced writes are refused in any case.
    pub async fn lost(&mut self) {
        // An engine that is no longer there has no leaders either.
        let _gone = self.lost.wait_for(|lost| *lost).await;
    }

    /// Gives the leadership up, and returns when somebody else can win.
    pub async fn resign(mut self) {
        if let Some(release) = self.release.take() {
            let _closed = release().await;
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            drop(release());
        }
    }
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership").field("fence", &self.fence).finish_non_exhaustive()
    }
}
