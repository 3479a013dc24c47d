//! Waits for a link's card when a crawler fetches its page, as happens when the link is pasted.
//!
//! Waits until the machine has the newest state or reports that there is none; the rules are in
//! `relay/preview.rs`. A browser that shows the page, a `HEAD`, and any request while HTTP places
//! are short get at once what is known.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use smol::{Timer, future};

use super::Daemon;
use super::head::SharePage;
use relay::preview::{PREVIEW_MS_MAX, Preview};
use relay::table::Id;

/// The newest state behind a link, as the page protocol's `state`. `None` if the page has no card.
pub async fn card(daemon: &Daemon, asked: &SharePage) -> Option<Vec<u8>> {
    let is_short = daemon.heads.borrow().is_short();
    let preview = if asked.is_shown || asked.is_head || is_short {
        None
    } else {
        daemon.step(|relay, now| relay.handle_preview(now, asked.address, &asked.link))
    };
    let Some(preview) = preview else { return daemon.relay.borrow().card(daemon.clock.now(), &asked.link) };
    let waiting = Waiting { daemon, preview };
    let over = poll_fn(|context| {
        let is_over = daemon.relay.borrow().is_preview_over(daemon.clock.now(), preview);
        if is_over { Poll::Ready(()) } else { daemon.previews.poll(context) }
    });
    let late = async {
        Timer::after(Duration::from_millis(PREVIEW_MS_MAX)).await;
    };
    future::or(over, late).await;
    waiting.end()
}

/// A waiting preview. Frees its row when dropped, since its connection may be cut meanwhile.
struct Waiting<'a> {
    daemon: &'a Daemon,
    preview: Id<Preview>,
}

impl Waiting<'_> {
    /// Stops waiting; returns the card, if there is one.
    fn end(&self) -> Option<Vec<u8>> {
        self.daemon.step(|relay, now| relay.handle_preview_over(now, self.preview))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Does nothing if it ended before: its row is gone then.
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::config::Config;
    use crate::daemon::listen::Listeners;
    use crate::daemon::systemd::Notify;
    use relay::rig::{BOARD, Rig};

    #[test]
    fn a_preview_whose_connection_goes_leaves_no_row_behind() {
        let config = Config::of_defaults(&board::HOST).unwrap();
        let listeners = Listeners::default();
        let daemon = Daemon::new(config, None, &listeners, &listeners, Notify::default()).unwrap();
        let rig = Rig::up(&BOARD);
        *daemon.relay.borrow_mut() = rig.relay;
        let asked = SharePage {
            link: "link".into(),
            query: String::new(),
            host: None,
            address: [127, 0, 0, 1].into(),
            is_shown: false,
            coding: crate::daemon::assets::coding::Coding::Plain,
            is_head: false,
        };
        {
            let mut waits = pin!(card(&daemon, &asked));
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(daemon.relay.borrow().in_use().links, 1);
        }
        daemon.relay.borrow().check();
        daemon.step(|relay, now| relay.handle_uplink_lost(now));
        daemon.step(|relay, now| relay.handle_timeout(now.after(60_000)));
        assert_eq!(daemon.relay.borrow().in_use().links, 0, "nobody waits for it any more");
    }
}
