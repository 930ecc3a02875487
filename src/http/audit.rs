//! `GET /internal/v1/audit`: who changed what, for auditors and operators.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::audit::Link;
use crate::flows::authorize::Act;
use crate::flows::read_audit::{MOST, page};
use crate::flows::{Context, Failure};

/// Entries in one answer where nothing else is asked for.
const USUAL: u64 = 100;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// The number of the entry after which the page begins; from the first one on when not given.
    after: Option<i64>,
    /// Only what was done to this: an id, or a name.
    subject: Option<String>,
    /// 1 to 1000; 100 when not given.
    limit: Option<u64>,
}

/// One page of the audit log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AuditV1 {
    /// The last entry of all, `SEQ:HASH`: kept elsewhere, it tells whether entries were cut off or written anew.
    head: String,
    /// The first one first.
    entries: Vec<AuditEntryV1>,
    /// What to ask with as `after` for the next page; `null` on the last one.
    next: Option<i64>,
}

/// An entry and its hash.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AuditEntryV1 {
    seq: i64,
    /// SHA-256 over `attestd audit entry v1\n`, the hash of the entry before (32 octets; zeros before the
    /// first), and the octets of `entry` as they stand here.
    hash: String,
    /// `at`, `who`, `what`, `subject`, `before`, `after`, `why`; its names are sorted.
    #[schema(value_type = Object)]
    entry: Box<RawValue>,
}

/// Who changed what, from what to what, and why: a chain of hashes, in its order.
#[utoipa::path(
    get, path = "/internal/v1/audit", tag = "Service",
    security(("token" = ["operator", "auditor"])),
    params(Question),
    responses((status = 200, description = "Some of it.", body = AuditV1)),
)]
pub async fn read(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadAudit).await {
        return refusal;
    }
    let question = match question {
        Ok(Query(question)) => question,
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let limit = question.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Problem::invalid_request(format!("limit is 1 to {MOST}")).into_response();
    }
    let after = question.after.unwrap_or(0);
    match page(&ctx.store, after, question.subject.as_deref(), limit).await {
        Ok(page) => {
            let last = page.links.last().map(|link| link.seq);
            let entries: Result<Vec<_>, Failure> = page.links.into_iter().map(described).collect();
            match entries {
                Ok(entries) => no_store(AuditV1 {
                    head: page.head.to_string(),
                    entries,
                    next: last.filter(|_| page.more),
                }),
                Err(failure) => error::to_internal(&failure),
            }
        }
        Err(failure) => error::to_internal(&failure),
    }
}

fn described(link: Link) -> Result<AuditEntryV1, Failure> {
    let entry = RawValue::from_string(link.text)
        .map_err(|_| Failure::Inconsistent("an entry of the audit log is no JSON"))?;
    Ok(AuditEntryV1 {
        seq: link.seq,
        hash: hex::encode(link.hash),
        entry,
    })
}
