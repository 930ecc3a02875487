//! Routes that are no JSON API, and why each is none: the only way to add a route that is not described.

use axum::Router;
use axum::routing::MethodRouter;

/// Routes without a description.
#[derive(Debug)]
pub struct Elsewhere<S> {
    routes: Router<S>,
    listed: Vec<(&'static str, &'static str)>,
}

impl<S: Clone + Send + Sync + 'static> Elsewhere<S> {
    /// None.
    pub fn new() -> Self {
        Self {
            routes: Router::new(),
            listed: Vec::new(),
        }
    }

    /// One more, with the reason why it is not described.
    #[must_use]
    pub fn route(
        mut self,
        path: &'static str,
        why: &'static str,
        methods: MethodRouter<S>,
    ) -> Self {
        self.routes = self.routes.route(path, methods);
        self.listed.push((path, why));
        self
    }

    /// The routes.
    pub fn into_routes(self) -> Router<S> {
        self.routes
    }

    /// Each path, and why it is not described.
    pub fn listed(&self) -> &[(&'static str, &'static str)] {
        &self.listed
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Elsewhere<S> {
    fn default() -> Self {
        Self::new()
    }
}
