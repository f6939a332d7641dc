//! Sessions: how a browser shows that it knows the token, and how a form shows that it is ours.
//!
//! ```text
//!   POST login (token) ──▶ cookie: expiry.nonce.signature ──each request──▶ signature right, not expired, not ended
//!   POST logout ──▶ a note in Redis ──read once a second, while sessions are shown──▶ ended, in every process
//!   page ──▶ hidden field form_token: signature of the session ──each form──▶ signature right
//! ```
//!
//! The key is made of the token, so that sessions outlive a restart, hold for every process with the same token, and end
//! when the token changes. Without a token there are no sessions, and the key is made anew by each process: a form of a page
//! from before a restart is refused, and the page says to load it anew.
//!
//! There is no list of sessions that hold, only one of those that ended before their time: so what they cost Redis does not
//! grow with the viewers, and the list is short. A session that was logged out of is refused by this process from then on,
//! and by others within a second.
//!
//! *Redis away:* what was read last holds, and nobody can log out; a process that has read nothing yet lets no session in.
//! *Crash:* of a Redis that loses its last second, a note may be lost with it, and in one that somebody empties all are;
//! the process where somebody logged out knows it still, until it ends.
//! To end all sessions, change the token.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;

use super::live::SECOND;
use crate::config::Secret;
use crate::error::chain;
use crate::queue::{QueueError, Redis};

/// Name of the session's cookie.
pub(super) const COOKIE: &str = "feedmill_session";
/// How long a session lasts: a working day.
pub(super) const LIFETIME: Duration = Duration::from_hours(12);

/// Signs and checks. One for each process.
pub(super) struct Sessions {
    key: hmac::Key,
    /// What Redis said last of the sessions that have ended, and when. Who comes while it is read waits for it.
    ended: tokio::sync::Mutex<Option<(Instant, HashSet<String>)>>,
    /// The nonces of those that ended here, and when they would have been over.
    ended_here: Mutex<HashMap<String, SystemTime>>,
}

/// A session that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Tells sessions apart in the log.
    pub(super) nonce: String,
    /// When it is over.
    expires_at: SystemTime,
}

impl Session {
    /// Itself until its time is over.
    pub(super) fn if_not_over(self, now: SystemTime) -> Option<Self> {
        (now < self.expires_at).then_some(self)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        let secret = token.map_or_else(|| random().to_vec(), |token| token.expose().as_bytes().to_vec());
        // So that what is signed here is of no use where else the token may be a key.
        let secret = [b"feedmill session ", &secret[..]].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { key, ended: tokio::sync::Mutex::default(), ended_here: Mutex::default() }
    }

    /// The value of the cookie of a new session.
    pub(super) fn begin(&self, now: SystemTime) -> (String, Session) {
        let expires = (now + LIFETIME).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires_at = UNIX_EPOCH + Duration::from_secs(expires);
        let nonce = hex(&random()[..8]);
        let front = format!("{expires}.{nonce}");
        let signature = hex(hmac::sign(&self.key, front.as_bytes()).as_ref());
        (format!("{front}.{signature}"), Session { nonce, expires_at })
    }

    /// The session of a cookie; `None` when it is not one of ours, or over. It may [have ended](Self::has_ended) before.
    pub(super) fn check(&self, cookie: &str, now: SystemTime) -> Option<Session> {
        let (front, signature) = cookie.rsplit_once('.')?;
        hmac::verify(&self.key, front.as_bytes(), &unhex(signature)?).ok()?;
        let (expires, nonce) = front.split_once('.')?;
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(expires.parse().ok()?))?;
        (now < expires_at).then(|| Session { nonce: nonce.to_owned(), expires_at })
    }

    /// Whether somebody has logged out of it, here or at another process of the same Redis.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: it is not known yet who has.
    pub(super) async fn has_ended(&self, session: &Session, redis: &Redis) -> Result<bool, QueueError> {
        if self.ended_here.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&session.nonce) {
            return Ok(true);
        }
        let mut ended = self.ended.lock().await;
        let is_fresh = ended.as_ref().is_some_and(|(at, _)| at.elapsed() < SECOND);
        if !is_fresh {
            match (redis.ended_sessions().await, &mut *ended) {
                (Ok(found), ended) => *ended = Some((Instant::now(), found)),
                (Err(error), None) => return Err(error),
                (Err(error), Some((at, _))) => {
                    tracing::debug!(error = %chain(&error), "ended sessions cannot be read; those that are known hold");
                    // Or each request would wait for Redis in vain.
                    *at = Instant::now();
                }
            }
        }
        Ok(ended.as_ref().is_some_and(|(_, ended)| ended.contains(&session.nonce)))
    }

    /// Ends a session for every process.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: nothing was done, and it may be repeated.
    pub(super) async fn end(&self, session: &Session, redis: &Redis, now: SystemTime) -> Result<(), QueueError> {
        let left = session.expires_at.duration_since(now).unwrap_or_default();
        redis.end_session(&session.nonce, left).await?;
        let mut ended_here = self.ended_here.lock().unwrap_or_else(PoisonError::into_inner);
        ended_here.retain(|_, over_at| *over_at > now);
        ended_here.insert(session.nonce.clone(), session.expires_at);
        Ok(())
    }

    /// What forms on the pages of a session carry.
    pub(super) fn form_token(&self, session: Option<&Session>) -> String {
        hex(hmac::sign(&self.key, form_text(session).as_bytes()).as_ref())
    }

    /// Whether a form carries what its page was given.
    pub(super) fn is_form_token(&self, session: Option<&Session>, shown: &str) -> bool {
        unhex(shown).is_some_and(|shown| hmac::verify(&self.key, form_text(session).as_bytes(), &shown).is_ok())
    }
}

fn form_text(session: Option<&Session>) -> String {
    // No cookie's front begins so.
    format!("form {}", session.map_or("", |session| &session.nonce))
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_holds_until_its_end_and_only_as_it_was_signed() {
        let (sessions, now) = (Sessions::new(Some(&Secret::new("s3cret"))), SystemTime::now());
        let (cookie, session) = sessions.begin(now);
        assert_eq!(sessions.check(&cookie, now + LIFETIME / 2), Some(session.clone()));
        assert_eq!(sessions.check(&cookie, now + LIFETIME), None);
        assert_eq!(session.clone().if_not_over(now + LIFETIME / 2), Some(session.clone()));
        assert_eq!(session.if_not_over(now + LIFETIME), None);
        let later = cookie.replacen(|c: char| c.is_ascii_digit(), "9", 1);
        for wrong in [later.as_str(), &cookie[1..], "", ".", "1.2.3", "9999999999.abc.é0"] {
            assert_eq!(sessions.check(wrong, now), None, "{wrong}");
        }
        let again = Sessions::new(Some(&Secret::new("s3cret")));
        assert!(again.check(&cookie, now).is_some(), "after a restart");
        let changed = Sessions::new(Some(&Secret::new("other")));
        assert_eq!(changed.check(&cookie, now), None, "with another token");
    }

    #[test]
    fn a_form_belongs_to_its_session() {
        let (sessions, now) = (Sessions::new(None), SystemTime::now());
        let (one, other) = (sessions.begin(now).1, sessions.begin(now).1);
        let token = sessions.form_token(Some(&one));
        assert!(sessions.is_form_token(Some(&one), &token));
        for wrong in [Some(&other), None] {
            assert!(!sessions.is_form_token(wrong, &token));
        }
        assert!(!sessions.is_form_token(Some(&one), ""));
        assert!(!Sessions::new(None).is_form_token(Some(&one), &token), "of another process");
    }
}
