//! Idempotency keys: the same key and request gives the first answer again for 24 hours. A key is written in the transaction of its
//! change's intent and answered in the transaction that closes it.

use super::{Tx, ms, to_json};
use crate::error::{Code, Error, Result};
use crate::id::OperationId;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

/// How long a key is remembered.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// A caller's key for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Keys of different scopes (tokens) are different keys.
    pub scope: String,
    /// The key.
    pub key: String,
    /// A hash of everything that makes the request what it is.
    pub fingerprint: [u8; 32],
}

/// The answer to a key, if it has been used for this very request.
pub(crate) fn look_up(c: &Connection, k: &IdempotencyKey, now: Timestamp) -> Result<Option<Value>> {
    let known: Option<(Vec<u8>, Option<String>)> = c
        .prepare_cached("SELECT fingerprint, answer FROM idempotency WHERE scope = ?1 AND key = ?2 AND (answer IS NULL OR created_ms >= ?3)")?
        .query_row(params![k.scope, k.key, ms(now) - KEPT_MS], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    match known {
        None => Ok(None),
        Some((f, _)) if f != k.fingerprint => {
            Err(Error::new(Code::IdempotencyKeyReused, "this Idempotency-Key was used for another request: take a new key for a new request"))
        }
        Some((_, None)) => Err(Error::new(Code::IdempotencyInFlight, "the first request with this Idempotency-Key is still under way: try again soon")),
        Some((_, Some(answer))) => Ok(Some(super::json(&answer, "idempotency answer")?)),
    }
}

impl Tx<'_> {
    /// The first answer to this key, if there is one; else the key is taken for this change.
    pub(crate) fn take_key(&mut self, key: Option<&IdempotencyKey>, op: Option<&OperationId>) -> Result<Option<Value>> {
        let Some(k) = key else { return Ok(None) };
        self.conn.execute("DELETE FROM idempotency WHERE created_ms < ?1 AND answer IS NOT NULL", [ms(self.now) - KEPT_MS])?;
        let known = look_up(self.conn, k, self.now)?;
        if known.is_none() {
            self.conn.execute(
                "INSERT INTO idempotency(scope, key, fingerprint, operation_id, created_ms) VALUES(?1, ?2, ?3, ?4, ?5)",
                params![k.scope, k.key, &k.fingerprint[..], op.map(OperationId::as_str), ms(self.now)],
            )?;
        }
        Ok(known)
    }

    /// Takes the key for this change, or says that another request has just used it.
    pub(crate) fn claim_key(&mut self, key: Option<&IdempotencyKey>, op: Option<&OperationId>) -> Result<()> {
        match self.take_key(key, op)? {
            None => Ok(()),
            Some(_) => Err(Error::new(Code::IdempotencyInFlight, "the first request with this Idempotency-Key has just ended: try again for its answer")),
        }
    }

    /// Answers a key.
    pub(crate) fn answer_key<T: serde::Serialize>(&mut self, key: Option<&IdempotencyKey>, answer: &T) -> Result<()> {
        if let Some(k) = key {
            self.conn.execute("UPDATE idempotency SET answer = ?3 WHERE scope = ?1 AND key = ?2", params![k.scope, k.key, to_json(answer)?])?;
        }
        Ok(())
    }

    /// Answers the key of an operation that recovery finished.
    pub(crate) fn answer_key_of(&mut self, op: &OperationId, answer: &Value) -> Result<()> {
        self.conn.execute("UPDATE idempotency SET answer = ?2 WHERE operation_id = ?1 AND answer IS NULL", params![op.as_str(), to_json(answer)?])?;
        Ok(())
    }

    /// Frees the key of an operation that came to nothing, so that it may be tried again.
    pub(crate) fn free_key_of(&mut self, op: &OperationId) -> Result<()> {
        self.conn.execute("DELETE FROM idempotency WHERE operation_id = ?1 AND answer IS NULL", [op.as_str()])?;
        Ok(())
    }
}
