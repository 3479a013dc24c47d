//! A link's card for whoever fetches its page without a browser, as a crawler does when it is pasted.
//!
//! Waits until the machine has the newest state or says that there is none to be had: the rules are
//! `relay/preview.rs`'s. A browser that shows the page, a `HEAD`, and anybody where places are short
//! are answered at once with what is known.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use smol::{Timer, future};

use super::Daemon;
use super::head::SharePage;
use crate::relay::preview::PREVIEW_MS_MAX;

/// The newest state behind a link: the page protocol's `state`. `None` where the page has no card.
pub async fn card(daemon: &Daemon, asked: &SharePage) -> Option<Vec<u8>> {
    let is_short = daemon.heads.borrow().is_short();
    let preview = if asked.is_shown || asked.is_head || is_short {
        None
    } else {
        daemon.step(|relay, now| relay.handle_preview(now, asked.address, &asked.link))
    };
    let Some(preview) = preview else { return daemon.relay.borrow().card(daemon.clock.now(), &asked.link) };
    let over = poll_fn(|context| {
        let is_over = daemon.relay.borrow().is_preview_over(daemon.clock.now(), preview);
        if is_over { Poll::Ready(()) } else { daemon.previews.poll(context) }
    });
    let late = async {
        Timer::after(Duration::from_millis(PREVIEW_MS_MAX)).await;
    };
    future::or(over, late).await;
    daemon.step(|relay, now| relay.handle_preview_over(now, preview))
}
