//! An officer or a watcher asks which push certificates there are, and how far each is.

use super::Failure;
use crate::ids::PushCertificateId;
use crate::pki::pem;
use crate::push::PushCertificate as Chain;
use crate::push::view::{
    CanaryV1, PushCertificateDetailsV1, PushCertificateV1, PushCertificatesV1, PushProposalV1,
    PushRequestV1, Told,
};
use crate::store::{PushCertificate, PushRequest, Store};
use crate::time::Timestamp;

/// Every certificate, every request that is open, and what is proposed.
pub async fn list(store: &Store, now: Timestamp) -> Result<PushCertificatesV1, Failure> {
    let tx = store.read().await?;
    let certificates = tx.push_certificates().await?;
    let requests = tx.push_requests().await?;
    let proposals = tx.push_proposals(now).await?;
    Ok(PushCertificatesV1 {
        push_certificates: certificates
            .into_iter()
            .map(|one| described(one, now))
            .collect(),
        requests: requests.into_iter().map(requested).collect(),
        proposals: proposals.into_iter().map(PushProposalV1::from).collect(),
    })
}

/// One of them, its Macs, and those that try it; `None` where there is none of that id.
pub async fn one(
    store: &Store,
    id: &PushCertificateId,
    now: Timestamp,
) -> Result<Option<PushCertificateDetailsV1>, Failure> {
    let tx = store.read().await?;
    let Some(certificate) = tx.push_certificate(id).await? else {
        return Ok(None);
    };
    let canaries = tx.canaries(id).await?;
    let macs = tx.enrolled_under(&certificate.topic).await?;
    // It was read when it was installed.
    let chain = Chain::read(certificate.chain.as_bytes())
        .map_err(|_| Failure::Inconsistent("a stored push certificate cannot be read"))?;
    Ok(Some(PushCertificateDetailsV1 {
        certificate: described(certificate, now),
        issuer: chain.issuer(),
        common_name: chain.common_name().map(str::to_owned),
        macs,
        canaries: canaries.iter().map(CanaryV1::from).collect(),
    }))
}

/// A stored certificate without its key, as others read it.
pub fn described(certificate: PushCertificate, now: Timestamp) -> PushCertificateV1 {
    let held = certificate.held();
    let told = Told {
        apple_account: certificate.apple_account,
        activated_at: certificate.activated_at,
        untried_because: certificate.untried_because,
    };
    PushCertificateV1::new(held, told, now)
}

/// A stored request without its key.
pub fn requested(request: PushRequest) -> PushRequestV1 {
    PushRequestV1 {
        push_request_id: request.push_request_id,
        apple_account: request.apple_account,
        requested_at: request.requested_at,
        csr: pem::request_to_pem(&request.csr),
    }
}
