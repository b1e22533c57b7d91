//! What the thread does in every round: posting, polling transfers and notifications, telling endpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nixl_sys::{NixlError, NotificationMap};

use super::super::command::Transfer;
use super::super::endpoint::Claim;
use super::super::ledger::Outcome;
use super::super::transfers::{Posted, Stuck};
use super::{Owner, TICK};

/// A round that takes so long has moved bytes, hundreds of kilobytes: the thread is late, and has to look more often.
const MANY_BYTES: Duration = Duration::from_micros(50);

impl Owner {
    pub(super) fn post(&mut self, transfer: Box<Transfer>) {
        let Some(live) = &mut self.live else { return };
        if self.peers.is_lost(&transfer.peer) {
            return self.endpoints.failed(&transfer);
        }
        self.counters.transfers.fetch_add(1, Ordering::Relaxed);
        self.peers.used(&transfer.peer);
        match live.transfers.post(&self.agent, transfer) {
            Posted::InFlight => {}
            Posted::Ended(transfer) => {
                self.peers.ended(&transfer.peer);
                self.endpoints.transferred(&transfer);
            }
            Posted::Refused(transfer, error) => {
                self.peers.ended(&transfer.peer);
                self.endpoints.refused(&transfer, &error.to_string());
            }
            Posted::PeerGone(transfer, error) => {
                self.endpoints.failed(&transfer);
                self.lose(&transfer.peer, &error.to_string());
            }
            Posted::Stuck(stuck) => self.stuck(&stuck),
        }
    }

    /// NIXL has the transfer for good, and with it the memory and what it knows of the peer.
    fn stuck(&mut self, stuck: &Stuck) {
        let Stuck { endpoint, token, peer, regions, error } = stuck;
        let bytes: u64 = regions.iter().map(|region| self.regions.abandon(*region)).sum();
        self.counters.abandoned.fetch_add(bytes, Ordering::Relaxed);
        tracing::warn!(peer = &**peer, %error, bytes, "NIXL failed to post a transfer; its memory stays mapped");
        match error {
            // Something on this side: the peer lives, and must not be forgotten under the transfer.
            NixlError::InvalidParam => {
                self.peers.pin(peer);
                self.peers.ended(peer);
            }
            error => self.lose(peer, &error.to_string()),
        }
        self.endpoints.stuck(*endpoint, *token, &error.to_string());
    }

    pub(super) fn notify(&mut self, peer: &str, message: &[u8]) {
        let Some(live) = &self.live else { return };
        // A message to a peer that NIXL has not met yet would look like its loss.
        if !self.peers.is_known(peer) {
            return;
        }
        if let Err(error) = self.agent.send_notification(peer, message, Some(&live.backend)) {
            self.lose(peer, &error.to_string());
            self.retry_waiting();
        }
    }

    /// One round: notifications, then transfers (polling both is what makes UCX progress). True when something happened.
    pub(super) fn poll(&mut self) -> bool {
        if !self.expects() {
            return false;
        }
        let began = Instant::now();
        let mut busy = self.poll_notifications();
        let mut lost = Vec::new();
        if let Some(live) = &mut self.live {
            let (endpoints, peers) = (&mut self.endpoints, &mut self.peers);
            live.transfers.poll(&self.agent, |transfer, outcome| {
                busy = true;
                peers.ended(&transfer.peer);
                match outcome {
                    Outcome::Done => endpoints.transferred(transfer),
                    Outcome::PeerFailed(reason) => {
                        endpoints.failed(transfer);
                        lost.push((Arc::clone(&transfer.peer), reason));
                    }
                }
            });
        }
        for (peer, reason) in lost {
            self.lose(&peer, &reason);
        }
        if busy {
            self.drop_released();
            self.retry_waiting();
        }
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.endpoints.tick(now);
        }
        // NIXL does not say whether bytes have moved.
        busy || now.duration_since(began) >= MANY_BYTES
    }

    fn poll_notifications(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        let notifications = &mut live.notifications;
        if let Err(error) = self.agent.get_notifications(notifications, None) {
            tracing::debug!(%error, "NIXL gave no notifications");
            return false;
        }
        if !matches!(notifications.len(), Ok(1..)) {
            return false;
        }
        for peer in notifications.agents() {
            // nixl-sys gives no way to read a notification of an agent whose name is no text.
            let Ok(peer) = peer else {
                self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let Ok(messages) = notifications.get_notifications(peer) else { continue };
            for message in messages.filter_map(Result::ok) {
                if self.endpoints.notified(peer, &message) == Claim::Foreign {
                    self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // The map can be emptied only by a call that refuses bytes which are no text, so a new one takes its place.
        match NotificationMap::new() {
            Ok(empty) => *notifications = empty,
            Err(error) => tracing::error!(%error, "NIXL gave no new notification map"),
        }
        true
    }

    pub(super) fn lose(&mut self, peer: &str, reason: &str) {
        if self.peers.lose(peer, reason) {
            tracing::info!(peer, reason, "peer lost");
            self.endpoints.lost(peer, reason);
        }
    }
}
