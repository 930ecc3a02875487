//! The only loops. Each does one thing again and again until the service stops; what it does is a
//! flow that runs once, so that tests call the flow and wait for nothing.

mod fleet;
mod refusals;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "otel")]
use crate::flows::export_traces::{self, Collector};
use crate::flows::wake::Turn;
use crate::flows::watch_standstill::Heart;
use crate::flows::{
    Context, Failure, ask_to_verify, challenge, deliver_webhooks, draw_beacon, follow_events,
    follow_issuer, hand_over_master_key, push_signals, read_audit, read_status, refuse,
    relay_answer, resume, rotate_push_certificate, sweep, tell_log, tell_of_end, transmit_signals,
    try_push_certificate, wake, watch_clock, watch_push_certificates, watch_standstill,
    witness_log,
};

/// How often what is due is looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often unanswered challenges are looked for.
const CHALLENGES: Duration = Duration::from_secs(1);
/// How often the clock is looked at; every question about trust looks at it, too.
const CLOCK: Duration = Duration::from_secs(1);
/// How often what other servers changed is looked for.
const FOLLOW: Duration = Duration::from_millis(200);
/// Events that come together are read together.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is looked whether a receiver is to be told of something that nobody here announced: what
/// another node wrote, what a command wants sent again, what is tried again.
const RECEIVERS: Duration = Duration::from_millis(500);
/// How often at most.
const RECEIVERS_GATHER: Duration = Duration::from_millis(50);
/// How often it is looked what the transparency log is to be told, at least.
const LOG: Duration = Duration::from_secs(5);
/// How often at most: one head for whatever happens meanwhile.
const LOG_GATHER: Duration = Duration::from_secs(1);
/// How often a witness is shown a head at most.
const WITNESS_GATHER: Duration = Duration::from_millis(500);
/// How often old sessions, challenges and events are removed.
const TIDY: Duration = Duration::from_secs(60 * 60);
/// How often a push certificate that came into use is looked for.
const PUSH_CERTIFICATE: Duration = Duration::from_secs(1);
/// How often it is looked whether one ends soon, or is refused.
const PUSH_TROUBLE: Duration = Duration::from_secs(5);
/// How often it is looked whether Macs were chosen to try one, and came.
const CANARIES: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody at the command line wants fresh evidence.
const ASKED: Duration = Duration::from_secs(1);
/// How often "last seen" is written.
const SEEN: Duration = Duration::from_secs(5);
/// How often it is written which tokens were used.
const TOKEN_USE: Duration = Duration::from_secs(60);
/// How often identities that ended are counted: they end by the day.
const IDENTITIES: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether everything moves.
const STANDSTILL: Duration = Duration::from_secs(15);
/// What a run may take, at most.
const LEEWAY: Duration = Duration::from_secs(60);
/// How often it is looked whether the audit log grew.
const AUDIT_HEAD: Duration = Duration::from_secs(60);
/// Pushes under way at a time.
const PUSHES: usize = 1024;
/// A clock that is not the machine's may move meanwhile: whose turn it is is looked at again after this
/// at the latest, while Macs wait,
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// and while none does.
const IDLE: Duration = Duration::from_secs(60);
/// How long a stopping service waits for APNs to answer.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The queues that workers empty.
#[derive(Debug)]
pub struct Queues {
    pub refusals: refuse::Waiting,
    /// Where traces are sent, if they are.
    #[cfg(feature = "otel")]
    pub collector: Option<Collector>,
}

/// The workers of a service: each ends when it stops.
struct Workers<'a> {
    under_way: JoinSet<()>,
    ctx: &'a Arc<Context>,
    stop: &'a CancellationToken,
}

impl Workers<'_> {
    /// One that runs again and again.
    fn every<F, R>(&mut self, period: Duration, name: &'static str, run_once: F)
    where
        F: Fn(Arc<Context>) -> R + Send + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let run = every(
            period,
            Arc::clone(self.ctx),
            self.stop.clone(),
            name,
            run_once,
        );
        self.under_way.spawn(run);
    }

    /// One with a loop of its own.
    fn start<R>(&mut self, run: impl FnOnce(Arc<Context>, CancellationToken) -> R)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let run = run(Arc::clone(self.ctx), self.stop.clone());
        self.under_way.spawn(run);
    }
}

/// Starts every worker; each ends when `stop` is cancelled.
pub fn start(ctx: &Arc<Context>, queues: Queues, stop: &CancellationToken) -> JoinSet<()> {
    let mut workers = Workers {
        under_way: JoinSet::new(),
        ctx,
        stop,
    };
    let Queues {
        refusals,
        #[cfg(feature = "otel")]
        collector,
    } = queues;
    #[cfg(feature = "otel")]
    if let Some(collector) = collector {
        workers.start(|ctx, stop| send_traces(ctx, collector, stop));
    }
    let (looked, ready) = oneshot::channel();
    workers.start(|ctx, stop| wake_macs(ctx, ready, stop));
    workers.start(tell_audit_head);
    workers.start(|ctx, stop| refusals::record(ctx, refusals, stop));
    workers.start(|ctx, stop| follow_push_certificate(ctx, looked, stop));
    workers.every(CANARIES, "try_push_certificate", |ctx| async move {
        try_push_certificate::run_once(&ctx).await
    });
    workers.every(ASKED, "ask_to_verify", |ctx| async move {
        ask_to_verify::run_once(&ctx).await
    });
    workers.every(PUSH_TROUBLE, "watch_push_certificates", |ctx| async move {
        watch_push_certificates::run_once(&ctx).await
    });
    workers.start(fleet::judge_anew);
    workers.start(fleet::remove_old);
    workers.every(SWEEP, "resume", |ctx| async move {
        resume::run_once(&ctx).await.map(drop)
    });
    workers.start(tell_followers);
    workers.start(tell_webhooks);
    if ctx.signals.is_some() {
        workers.start(tell_streams);
        workers.every(TIDY, "tidy_signals", |ctx| async move {
            transmit_signals::tidy(&ctx).await
        });
    }
    if ctx.log.is_some() {
        workers.start(tell_the_log);
        let witnesses = ctx.log.iter().flat_map(|log| log.witnesses.each());
        for which in 0..witnesses.count() {
            workers.start(|ctx, stop| show_to_witness(ctx, which, stop));
        }
    }
    workers.start(tell_coordinator);
    workers.every(
        hand_over_master_key::LOOKED,
        "hand_over_master_key",
        |ctx| async move {
            let followed = hand_over_master_key::follow(&ctx.store, &ctx.sealer).await;
            followed.map(drop)
        },
    );
    workers.every(
        SWEEP,
        "sweep",
        |ctx| async move { sweep::run_once(&ctx).await },
    );
    workers.every(SWEEP, "tell_of_end", |ctx| async move {
        tell_of_end::run_once(&ctx).await
    });
    workers.every(IDENTITIES, "identities", |ctx| async move {
        read_status::count_identities(&ctx).await.map(drop)
    });
    workers.every(CHALLENGES, "challenge", |ctx| async move {
        challenge::expire_due(&ctx).await
    });
    workers.every(CLOCK, "watch_clock", |ctx| async move {
        watch_clock::run_once(&ctx).await
    });
    if ctx.settings.issuer.is_some() {
        workers.every(follow_issuer::LOOKED, "follow_issuer", |ctx| async move {
            follow_issuer::run_once(&ctx).await
        });
    }
    workers.every(FOLLOW, "follow_changes", |ctx| async move {
        Ok(ctx.store.follow_changes().await?)
    });
    workers.every(
        TIDY,
        "tidy",
        |ctx| async move { challenge::tidy(&ctx).await },
    );
    workers.every(TIDY, "tidy_events", |ctx| async move {
        follow_events::tidy(&ctx).await
    });
    workers.every(TIDY, "tidy_webhooks", |ctx| async move {
        deliver_webhooks::tidy(&ctx).await
    });
    workers.every(TIDY, "tidy_relayed", |ctx| async move {
        relay_answer::tidy(&ctx).await
    });
    workers.every(SEEN, "seen", |ctx| async move {
        Ok(ctx.store.flush_seen().await?)
    });
    workers.every(TOKEN_USE, "token_use", |ctx| async move {
        Ok(ctx.store.flush_token_use().await?)
    });
    workers.every(STANDSTILL, "watch_standstill", |ctx| async move {
        watch_standstill::run_once(&ctx).await
    });
    workers.under_way
}

async fn every<F, R>(
    period: Duration,
    ctx: Arc<Context>,
    stop: CancellationToken,
    name: &'static str,
    run_once: F,
) where
    F: Fn(Arc<Context>) -> R,
    R: Future<Output = Result<(), Failure>>,
{
    let heart = heart(&ctx, name, period);
    while !pause(period, &stop).await {
        let done = run_once(Arc::clone(&ctx)).await;
        heart.beat(&done);
        report(&ctx, name, done);
    }
    // Once more, so that soft state reaches the disk.
    report(&ctx, name, run_once(Arc::clone(&ctx)).await);
}

/// Wakes many Macs at a time, no more within a second than the settings say, once it is known by which
/// push certificate: those who have their turn without one have it in vain.
async fn wake_macs(ctx: Arc<Context>, certificate: oneshot::Receiver<()>, stop: CancellationToken) {
    let mut under_way = JoinSet::new();
    tokio::select! {
        () = stop.cancelled() => return,
        _ = certificate => {}
    }
    let heart = heart(&ctx, "wake", IDLE);
    loop {
        heart.beats();
        let turn = if under_way.len() < PUSHES {
            ctx.wakeups.turn(ctx.clock.now())
        } else {
            Turn::Nobody
        };
        let pause = match turn {
            Turn::Wake(waiting) => {
                let ctx = Arc::clone(&ctx);
                under_way.spawn(async move {
                    report(&ctx, "wake", wake::wake_waiting(&ctx, &waiting).await);
                });
                continue;
            }
            Turn::NotBefore(time) => time.since(ctx.clock.now()).min(LOOK_AGAIN),
            Turn::Nobody => IDLE,
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = ctx.wakeups.arrived() => {}
            () = tokio::time::sleep(pause) => {}
            Some(_) = under_way.join_next() => {}
        }
    }
    // What APNs answers to pushes already sent is still written down; the rest is owed all the same.
    let _ = timeout(LAST_ANSWERS, async {
        while under_way.join_next().await.is_some() {}
    })
    .await;
}

/// Sends traces until the service stops, and then those that are left.
#[cfg(feature = "otel")]
async fn send_traces(ctx: Arc<Context>, mut collector: Collector, stop: CancellationToken) {
    let heart = heart(&ctx, "export_traces", IDLE);
    loop {
        heart.beats();
        let spans = tokio::select! {
            () = stop.cancelled() => break,
            spans = collector.next() => spans,
            () = tokio::time::sleep(IDLE) => continue,
        };
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            () = given_up => break,
            () = export_traces::send(&ctx, &mut collector, &spans) => {}
        }
    }
    let last = collector.last();
    let _ = timeout(
        LAST_ANSWERS,
        export_traces::send(&ctx, &mut collector, &last),
    )
    .await;
}

async fn follow_push_certificate(
    ctx: Arc<Context>,
    looked: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let mut generation = 0;
    let mut looked = Some(looked);
    let heart = heart(&ctx, "rotate_push_certificate", PUSH_CERTIFICATE);
    loop {
        match rotate_push_certificate::take_into_use(&ctx, generation).await {
            Ok(in_use) => {
                heart.beats();
                generation = in_use;
            }
            Err(failure) => report(&ctx, "rotate_push_certificate", Err(failure)),
        }
        if let Some(looked) = looked.take() {
            // Nobody waits for it in a service that stops.
            let _ = looked.send(());
        }
        if pause(PUSH_CERTIFICATE, &stop).await {
            return;
        }
    }
}

/// Keeps the memory of events level with the outbox. Commits of this process are announced; those of
/// others are looked for.
async fn tell_followers(ctx: Arc<Context>, stop: CancellationToken) {
    let mut appended = ctx.store.events_appended();
    let heart = heart(&ctx, "follow_events", FOLLOW);
    loop {
        let more = match follow_events::run_once(&ctx).await {
            Ok(more) => {
                heart.beats();
                more
            }
            Err(failure) => {
                report(&ctx, "follow_events", Err(failure));
                false
            }
        };
        if pause(GATHER, &stop).await {
            return;
        }
        if more {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = ctx.outlet.arrived() => {}
            () = tokio::time::sleep(FOLLOW) => {}
            Ok(()) = appended.changed() => {}
        }
    }
}

/// Tells whoever keeps logs where the audit log ends.
async fn tell_audit_head(ctx: Arc<Context>, stop: CancellationToken) {
    let mut told = None;
    let heart = heart(&ctx, "read_audit", AUDIT_HEAD);
    loop {
        match read_audit::tell_head(&ctx, told).await {
            Ok(head) => {
                heart.beats();
                told = Some(head);
            }
            Err(failure) => report(&ctx, "read_audit", Err(failure)),
        }
        if pause(AUDIT_HEAD, &stop).await {
            return;
        }
    }
}

/// Keeps the transparency log level with what happens.
async fn tell_the_log(ctx: Arc<Context>, stop: CancellationToken) {
    let mut appended = ctx.store.events_appended();
    let heart = heart(&ctx, "tell_log", LOG);
    loop {
        let told = tell_log::run_once(&ctx).await;
        heart.beat(&told);
        report(&ctx, "tell_log", told);
        report(&ctx, "draw_beacon", draw_beacon::run_once(&ctx).await);
        if let Some(log) = &ctx.log {
            witness_log::measure(&ctx, log);
        }
        if pause(LOG_GATHER, &stop).await {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOG) => {}
            Ok(()) = appended.changed() => {}
        }
    }
}

/// Shows one witness each new head: one that hangs holds up no other.
async fn show_to_witness(ctx: Arc<Context>, which: usize, stop: CancellationToken) {
    let Some(log) = &ctx.log else { return };
    let Some(witness) = log.witnesses.each().get(which) else {
        return;
    };
    let mut growth = log.growth();
    let heart = heart(&ctx, "witness_log", LOG);
    loop {
        growth.mark_unchanged();
        // A service that stops waits for nobody: whoever had signed is asked again.
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = witness_log::ask(&ctx, log, witness) => asked,
        };
        heart.beat(&asked);
        report(&ctx, "witness_log", asked);
        if pause(WITNESS_GATHER, &stop).await {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOG) => {}
            Ok(()) = growth.changed() => {}
        }
    }
}

/// Tells each receiver in a task of its own: one that hangs holds up no other. `due` says who may be told
/// now, each with its name.
async fn tell_each<R, D, T>(
    ctx: Arc<Context>,
    stop: CancellationToken,
    name: &'static str,
    due: impl Fn(Arc<Context>) -> D,
    round: impl Fn(Arc<Context>, R) -> T,
) where
    D: Future<Output = Result<Vec<(String, R)>, Failure>>,
    T: Future<Output = Result<bool, Failure>> + Send + 'static,
{
    let mut appended = ctx.store.events_appended();
    let mut under_way = JoinSet::new();
    let mut busy = HashSet::new();
    let heart = heart(&ctx, name, RECEIVERS);
    loop {
        match due(Arc::clone(&ctx)).await {
            Ok(due) => {
                heart.beats();
                for (id, receiver) in due {
                    if !busy.insert(id.clone()) {
                        continue;
                    }
                    let told = round(Arc::clone(&ctx), receiver);
                    let ctx = Arc::clone(&ctx);
                    under_way.spawn(async move {
                        report(&ctx, name, told.await.map(drop));
                        id
                    });
                }
            }
            Err(failure) => report(&ctx, name, Err(failure)),
        }
        if pause(RECEIVERS_GATHER, &stop).await {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RECEIVERS) => {}
            Ok(()) = appended.changed() => {}
            Some(Ok(done)) = under_way.join_next() => {
                busy.remove(&done);
            }
        }
        while let Some(Ok(done)) = under_way.try_join_next() {
            busy.remove(&done);
        }
    }
    // What was sent and is not written down is sent again.
    let _ = timeout(LAST_ANSWERS, async {
        while under_way.join_next().await.is_some() {}
    })
    .await;
}

async fn tell_webhooks(ctx: Arc<Context>, stop: CancellationToken) {
    let due = |ctx: Arc<Context>| async move {
        let due = deliver_webhooks::due(&ctx).await?.into_iter();
        Ok(due.map(|it| (it.webhook_id.to_string(), it)).collect())
    };
    let round =
        |ctx: Arc<Context>, webhook| async move { deliver_webhooks::round(&ctx, webhook).await };
    tell_each(ctx, stop, "deliver_webhooks", due, round).await;
}

async fn tell_streams(ctx: Arc<Context>, stop: CancellationToken) {
    let due = |ctx: Arc<Context>| async move {
        let due = push_signals::due(&ctx).await?.into_iter();
        Ok(due
            .map(|it| (it.stream.stream_id.to_string(), it))
            .collect())
    };
    let round = |ctx: Arc<Context>, held| async move { push_signals::round(&ctx, held).await };
    tell_each(ctx, stop, "push_signals", due, round).await;
}

/// Tells an old coordinator of answers; ends at once where there is none.
async fn tell_coordinator(ctx: Arc<Context>, stop: CancellationToken) {
    let Some(relay) = &ctx.settings.relay else {
        return;
    };
    let heart = heart(&ctx, "relay_answer", RECEIVERS);
    loop {
        let more = relay_answer::run_once(&ctx).await;
        heart.beat(&more);
        if matches!(more, Ok(true)) && !stop.is_cancelled() {
            continue;
        }
        report(&ctx, "relay_answer", more.map(drop));
        tokio::select! {
            () = stop.cancelled() => return,
            () = relay.answered.notified() => {}
            // What another node was told by its Macs, and what is tried again.
            () = tokio::time::sleep(RECEIVERS) => {}
        }
    }
}

/// A worker begins that pauses for so long between its runs. Three pauses and more than any deadline of a
/// database later, something is the matter with it.
fn heart(ctx: &Context, worker: &'static str, pause: Duration) -> Heart {
    ctx.watched.heart(worker, pause * 3 + LEEWAY)
}

/// Waits; true when the service stops meanwhile.
async fn pause(period: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(period) => false,
    }
}

fn report(ctx: &Context, worker: &'static str, result: Result<(), Failure>) {
    if let Err(failure) = result {
        ctx.metrics.worker_failures.inc();
        tracing::warn!(worker, "a run failed and will be repeated");
        failure.log();
    }
}
