//! A receiver shows its secret and gets a token for half an hour; with the token it is known again.

use super::transmit_signals::Signals;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::{ReceiverId, SecretHash};
use crate::publication::shared_signals::access::{Access, LIFETIME, NoToken, Scope, TokenRequest};
use crate::publication::shared_signals::receiver::Receiver;
use crate::secret::Secret;

/// A token, and what it is good for.
#[derive(Debug)]
pub struct Granted {
    pub token: Secret<String>,
    pub scope: Scope,
}

/// Makes a token for who shows a receiver's id and secret.
///
/// # Errors
/// While the clock is not believed, and when the receiver cannot be read.
pub async fn grant_access(
    ctx: &Context,
    signals: &Signals,
    request: &TokenRequest,
) -> Result<Result<Granted, NoToken>, Failure> {
    demand(ctx)?;
    let credentials = &request.credentials;
    let Some(receiver) = find(ctx, &credentials.client_id).await? else {
        return Ok(Err(NoToken::InvalidClient));
    };
    let shown = SecretHash::of(credentials.client_secret.expose().as_bytes());
    // In constant time.
    if Secret::new(*shown.as_bytes()) != Secret::new(*receiver.secret.as_bytes()) {
        return Ok(Err(NoToken::InvalidClient));
    }
    let scope = match &request.scope {
        None => Some(receiver.scope),
        Some(words) => Scope::parse(words).filter(|scope| scope.is_within(receiver.scope)),
    };
    let Some(scope) = scope else {
        return Ok(Err(NoToken::InvalidScope));
    };
    let access = Access {
        receiver_id: receiver.receiver_id,
        scope,
        until: ctx.clock.now().plus(LIFETIME),
    };
    let token = signals.access.grant(&access);
    let token = token.ok_or(Failure::Inconsistent("a token that cannot be written"))?;
    Ok(Ok(Granted { token, scope }))
}

/// Whether a caller may go on.
#[derive(Debug)]
pub enum Admission {
    Admitted(Receiver),
    /// No token, or none that is good.
    Unauthorized,
    /// A good token for something else.
    Forbidden,
}

/// Who the bearer of `token` is, if it may do what `allows` says.
///
/// # Errors
/// While the clock is not believed, and when the receiver cannot be read.
pub async fn admit(
    ctx: &Context,
    signals: &Signals,
    token: Option<&str>,
    allows: fn(Scope) -> bool,
) -> Result<Admission, Failure> {
    demand(ctx)?;
    let now = ctx.clock.now();
    let access = token.and_then(|token| signals.access.read(token));
    let Some(access) = access.filter(|access| now < access.until) else {
        return Ok(Admission::Unauthorized);
    };
    let Some(receiver) = find(ctx, access.receiver_id.as_str()).await? else {
        return Ok(Admission::Unauthorized);
    };
    if !allows(access.scope) || !access.scope.is_within(receiver.scope) {
        return Ok(Admission::Forbidden);
    }
    Ok(Admission::Admitted(receiver))
}

async fn find(ctx: &Context, receiver_id: &str) -> Result<Option<Receiver>, Failure> {
    let Ok(receiver_id) = ReceiverId::parse(receiver_id) else {
        return Ok(None);
    };
    Ok(ctx
        .store
        .read()
        .await?
        .signal_receiver(&receiver_id)
        .await?)
}
