//! `GET /enroll`: what would be installed, and what it may and may not do; and a form.
//! `POST /enroll`: the form. It makes a ticket and sends the browser on to the page of its progress,
//! where the profile waits.
//!
//! The lists are taken from what the code does: the profile from the one that would be installed,
//! the rights from its AccessRights, the commands from the one type that can build any.

use std::net::SocketAddr;

use askama::Template;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::reply::{Frame, failed, page as reply, refused, too_often};
use crate::enrollment::outline::{RIGHTS, Right};
use crate::enrollment::profile::ACCESS_RIGHTS;
use crate::enrollment::ticket::{Bounds, LIFETIME};
use crate::enrollment::{Platform, Protocol};
use crate::flows::describe_enrollment::{Description, describe_enrollment};
use crate::flows::offer_profile::offer_profile;
use crate::http::Public;
use crate::http::body::Received;
use crate::http::error::count;
use crate::ids::SerialNumber;
use crate::mdm::Command;
use crate::mdm::security_info::KEPT;
use crate::reason::Reason;

/// Its name in metrics and audit.
pub const SURFACE: &str = "enroll_page";

/// Largest form: two short fields.
const MAX_FORM: usize = 4 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default)]
    serial_number: String,
    #[serde(default)]
    identity: IdentityChoice,
}

/// Which kind of identity the Mac gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum IdentityChoice {
    /// The best this server gives.
    #[default]
    Automatic,
    /// For a Mac that cannot have its key attested.
    Scep,
}

impl IdentityChoice {
    const ALL: [Self; 2] = [Self::Automatic, Self::Scep];

    fn word(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Scep => "scep",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Automatic => "Automatic (most Macs)",
            Self::Scep => "SCEP: Intel Mac, virtual machine or macOS 13",
        }
    }
}

#[derive(Template)]
#[template(path = "enroll.html")]
struct EnrollPage<'a> {
    frame: Frame<'a>,
    described: &'a Description,
    server: &'a str,
    access_rights: i128,
    may: Vec<Right>,
    may_not: Vec<Right>,
    commands: Vec<Asked>,
    kept: &'a [&'a str],
    /// Each, and whether it is chosen.
    choices: [(IdentityChoice, bool); 2],
    serial: &'a str,
    fault: Option<&'a str>,
    /// How long the profile can be installed, minutes.
    lifetime: u64,
}

/// One command, as the page shows it.
struct Asked {
    command: Command,
    what: &'static str,
}

impl Asked {
    fn of(command: Command) -> Self {
        let what = match command {
            Command::SecurityInfo => {
                "macOS answers what its security state is. Recovery keys and the firewall’s list of \
                 apps may be in the answer; they are thrown away before anything is stored."
            }
            Command::DevicePropertiesAttestation { .. } => {
                "The Mac asks Apple for a certificate about itself, made for this one question, \
                 and hands it over with these properties. Apple makes a new one at most every \
                 seven days."
            }
        };
        Self { command, what }
    }
}

pub async fn page(State(public): State<Public>) -> Response {
    show(&public, StatusCode::OK, "", IdentityChoice::default(), None).await
}

async fn show(
    public: &Public,
    status: StatusCode,
    serial: &str,
    chosen: IdentityChoice,
    fault: Option<&str>,
) -> Response {
    let described = match describe_enrollment(&public.ctx).await {
        Ok(described) => described,
        Err(failure) => return failed(public, &failure),
    };
    let (may, may_not) = RIGHTS.into_iter().partition(|right| right.is_asked_for());
    let shown = EnrollPage {
        frame: Frame::of(public),
        described: &described,
        server: &public.ctx.settings.server_id,
        access_rights: ACCESS_RIGHTS,
        may,
        may_not,
        commands: Command::EACH.into_iter().map(Asked::of).collect(),
        kept: &KEPT,
        choices: IdentityChoice::ALL.map(|choice| (choice, choice == chosen)),
        serial,
        fault,
        lifetime: LIFETIME.as_secs() / 60,
    };
    reply(status, &shown)
}

pub async fn submit(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Received(body): Received<MAX_FORM>,
) -> Response {
    if !public.enroll_limit.allows(peer.as_deref(), &headers) {
        return too_often(&public);
    }
    let body = match body {
        Ok(body) => body,
        Err(reason) => {
            count(&public.ctx, SURFACE, reason, "body");
            return refused(&public, reason);
        }
    };
    let Ok(form) = serde_urlencoded::from_bytes::<Form>(&body) else {
        count(&public.ctx, SURFACE, Reason::RequestMalformed, "form");
        return refused(&public, Reason::RequestMalformed);
    };
    let bounds = match bounds(&form, public.ctx.settings.identity) {
        Ok(bounds) => bounds,
        Err(fault) => {
            // What was typed is shown to who typed it, and to nobody else.
            count(
                &public.ctx,
                SURFACE,
                Reason::RequestMalformed,
                "serial number",
            );
            let status = StatusCode::BAD_REQUEST;
            return show(
                &public,
                status,
                &form.serial_number,
                form.identity,
                Some(fault),
            )
            .await;
        }
    };
    match offer_profile(&public.ctx, bounds, None).await {
        Ok(offer) => {
            let page = format!("/enroll/{}/{}", offer.progress_id, offer.claim.expose());
            let headers = [
                (header::LOCATION, page),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Err(failure) => failed(&public, &failure),
    }
}

/// What the form asks for; `otherwise` is the identity where nothing was chosen.
///
/// # Refusals
/// No serial number, in words for who typed it. Small letters and spaces around it are forgiven.
fn bounds(form: &Form, otherwise: Protocol) -> Result<Bounds, &'static str> {
    let typed = form.serial_number.trim().to_ascii_uppercase();
    let serial = match typed.as_str() {
        "" => None,
        typed => Some(SerialNumber::parse(typed).map_err(|_| {
            "This is no serial number: it has 8 to 14 letters and digits. Apple menu, About This \
             Mac shows it. You can also leave the field empty."
        })?),
    };
    let platform = Platform {
        wanted: match form.identity {
            IdentityChoice::Automatic => None,
            IdentityChoice::Scep => Some(Protocol::Scep),
        },
        ..Platform::default()
    };
    Ok(Bounds {
        serial,
        protocol: platform.protocol(otherwise),
        ..Bounds::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<Form> {
        serde_urlencoded::from_str(body).ok()
    }

    #[test]
    fn a_serial_number_is_read_as_people_type_it_and_need_not_be_there() {
        let serial = |body: &str| {
            let bounds = bounds(&read(body).expect("a form"), Protocol::Acme);
            bounds.map(|bounds| bounds.serial.map(|serial| serial.to_string()))
        };
        assert_eq!(serial(""), Ok(None));
        assert_eq!(serial("serial_number=&identity=automatic"), Ok(None));
        let typed = "serial_number=+c02xl3fhjg5j%09&identity=scep";
        assert_eq!(serial(typed), Ok(Some("C02XL3FHJG5J".to_owned())));
        for wrong in ["serial_number=SHORT", "serial_number=%3Cscript%3E1234"] {
            assert!(serial(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_knows_that_a_mac_cannot_attest_chooses_the_other_identity() {
        let protocol = |body: &str| {
            let form = read(body).expect("a form");
            bounds(&form, Protocol::Acme).map(|bounds| bounds.protocol)
        };
        assert_eq!(protocol("identity=automatic"), Ok(Protocol::Acme));
        assert_eq!(protocol("identity=scep"), Ok(Protocol::Scep));
    }

    #[test]
    fn what_the_form_cannot_send_is_not_understood() {
        for body in [
            "identity=acme2",
            "serial_number=A&serial_number=B",
            "account=x",
            "{\"serial_number\":\"C02XL3FHJG5J\"}",
        ] {
            assert!(read(body).is_none(), "{body}");
        }
        for choice in IdentityChoice::ALL {
            let form = read(&format!("identity={}", choice.word())).expect("a form");
            assert_eq!(form.identity, choice);
        }
    }
}
