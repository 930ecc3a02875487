//! What goes through all Macs, some at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{TIDY, heart, pause, report};
use crate::flows::{self, Context};

/// How often some more Macs are judged, after another policy was switched on.
const JUDGE: Duration = Duration::from_secs(1);
/// From some Macs whose old answers are removed to the next,
const REMOVE: Duration = Duration::from_secs(1);
/// and after a failure.
const REMOVE_AGAIN: Duration = Duration::from_secs(60);

/// Ends when every Mac was judged by the policy in force.
pub(super) async fn judge_anew(ctx: Arc<Context>, stop: CancellationToken) {
    let heart = heart(&ctx, "judge_anew", JUDGE);
    while !pause(JUDGE, &stop).await {
        match flows::judge_anew::run_once(&ctx).await {
            Ok(flows::judge_anew::Progress::Done) => return heart.rests(),
            Ok(_) => heart.beats(),
            Err(failure) => report(&ctx, "judge_anew", Err(failure)),
        }
    }
}

/// Some Macs a second until all were looked at, and then not before tomorrow.
pub(super) async fn remove_old(ctx: Arc<Context>, stop: CancellationToken) {
    let heart = heart(&ctx, "remove_old", TIDY);
    let mut period = REMOVE;
    while !pause(period, &stop).await {
        period = match flows::remove_old::run_once(&ctx).await {
            Ok(flows::remove_old::Progress::More) => REMOVE,
            Ok(flows::remove_old::Progress::Rests) => TIDY,
            Err(failure) => {
                report(&ctx, "remove_old", Err(failure));
                REMOVE_AGAIN
            }
        };
        heart.beats();
    }
}
