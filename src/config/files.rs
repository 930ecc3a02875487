//! The files that settings name.

use std::path::{Path, PathBuf};

use super::Config;

impl Config {
    /// Makes paths lead from the folder of the configuration file.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.data_dir = folder.join(&self.data_dir);
        for (_, path) in self.files_mut() {
            *path = folder.join(&*path);
        }
    }

    /// The files that settings name, by the setting.
    pub fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut copy = self.clone();
        let files = copy.files_mut().into_iter();
        files
            .map(|(setting, path)| (setting, path.clone()))
            .collect()
    }

    fn files_mut(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let mut files: Vec<_> = [
            ("database.url_file", &mut self.database.url_file),
            ("public.tls_certificate", &mut self.public.tls_certificate),
            ("public.tls_key", &mut self.public.tls_key),
            ("public.tls_root", &mut self.public.tls_root),
            (
                "internal.tls_certificate",
                &mut self.internal.tls_certificate,
            ),
            ("internal.tls_key", &mut self.internal.tls_key),
            ("secrets.master_key_file", &mut self.secrets.master_key_file),
            ("apns.root", &mut self.apns.root),
            ("attestation.root", &mut self.attestation.root),
            ("policy.file", &mut self.policy.file),
            ("releases.key_file", &mut self.releases.key_file),
        ]
        .into_iter()
        .filter_map(|(setting, path)| Some((setting, path.as_mut()?)))
        .collect();
        let authorities = &mut self.pki.adopted_cas;
        files.extend(authorities.iter_mut().map(|path| ("pki.adopted_cas", path)));
        let roots = &mut self.internal.client_roots;
        files.extend(roots.iter_mut().map(|path| ("internal.client_roots", path)));
        if let Some(micromdm) = &mut self.micromdm {
            files.extend(micromdm.files().map(|path| ("micromdm", path)));
        }
        if let Some(oidc) = &mut self.internal.oidc {
            files.extend(oidc.root.iter_mut().map(|path| ("internal.oidc", path)));
        }
        let telemetry = self.telemetry.files();
        files.extend(telemetry.map(|path| ("telemetry", path)));
        let witnesses = self.transparency.files();
        files.extend(witnesses.map(|path| ("transparency.witnesses", path)));
        files
    }
}
