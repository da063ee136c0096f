//! For which client's request the code works that writes to the log. The ids are carried by tasks: the service sets them, a request to the
//! owner takes them along, and so does what the owner starts for it.

use std::fmt;

tokio::task_local! {
    static CURRENT: Option<LogContext>;
}

/// A request, or a connection on which none is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogContext {
    /// Counts the connections of a supervisor from 1.
    pub connection: u64,
    /// Counts the requests of the connection from 1.
    pub request: Option<u64>,
}

/// As it stands in the text of the log: `3` for a connection, `3.2` for its second request.
impl fmt::Display for LogContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.request {
            Some(request) => write!(f, "{}.{request}", self.connection),
            None => self.connection.fmt(f),
        }
    }
}

/// What the running code works for; none if it is for no client.
pub fn current() -> Option<LogContext> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// The present connection's request of this number.
pub fn request(number: u64) -> Option<LogContext> {
    current().map(|context| LogContext { request: Some(number), ..context })
}

/// Runs a future for this context.
pub fn scope<F: Future>(context: Option<LogContext>, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// Runs a function for this context.
pub fn within<T>(context: Option<LogContext>, run: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, run)
}

/// Starts a task that goes on for the present context.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(scope(current(), future));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_context_goes_along_and_ends_with_its_scope() {
        let connection = LogContext { connection: 3, request: None };
        let request = LogContext { request: Some(2), ..connection };
        assert_eq!((connection.to_string(), request.to_string()), ("3".to_owned(), "3.2".to_owned()));
        scope(Some(connection), async {
            scope(Some(request), async {
                assert_eq!(current(), Some(request));
                let (send, received) = tokio::sync::oneshot::channel();
                spawn(async {
                    let _ = send.send(current());
                });
                assert_eq!(received.await.unwrap(), Some(request));
            })
            .await;
            assert_eq!(current(), Some(connection));
            assert_eq!(within(None, current), None);
        })
        .await;
        assert_eq!(current(), None);
    }
}
