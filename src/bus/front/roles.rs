//! Whether this relay leads: as the log says.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info};

use super::Front;
use super::lead::Lead;
use crate::bus::Bus;
use crate::store::Leadership;

/// How long the log may take to say that another relay leads, once the bus has ended for that.
const FENCED: Duration = Duration::from_secs(30);

/// Leads when the log says so, and ends that when it does no more; until what leads has ended for
/// no reason.
pub async fn follow(front: Arc<Front>) {
    let _ended = front.ended.clone().drop_guard();
    let log = Arc::clone(&front.log);
    let mut leadership = log.leadership();
    let mut led: Option<(u64, Arc<Bus>)> = None;
    loop {
        let known = *leadership.borrow_and_update();
        let epoch = match known {
            Leadership::Here { epoch } => Some(epoch),
            Leadership::There { .. } | Leadership::Nobody => None,
        };
        if led.as_ref().map(|(led, _)| *led) != epoch {
            end(&front, led.take());
            if let Leadership::There { epoch, relay } = known {
                info!(%relay, epoch, "another relay leads the message bus");
                front.know(epoch);
            }
            if let Some(epoch) = epoch {
                led = begin(&front, epoch).await;
                if led.is_none() {
                    // The process ends, and another relay leads.
                    return;
                }
            }
        } else if let Leadership::There { epoch, .. } = known {
            front.know(epoch);
        }
        let ended = async {
            match &led {
                Some((_, bus)) => bus.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = leadership.changed() => {
                if changed.is_err() {
                    end(&front, led.take());
                    return;
                }
            }
            () = ended => {
                end(&front, led.take());
                if front.is_stopping() {
                    return;
                }
                if !matches!(timeout(FENCED, leadership.changed()).await, Ok(Ok(()))) {
                    error!("the message bus has ended although this relay leads");
                    return;
                }
            }
        }
    }
}

async fn begin(front: &Arc<Front>, epoch: u64) -> Option<(u64, Arc<Bus>)> {
    let starting = Arc::clone(&front.log);
    let started = spawn_blocking(move || starting.start(epoch)).await;
    let bus = match started.expect("starting does not panic") {
        Ok(bus) => bus,
        Err(error) => {
            error!(%error, epoch, "this relay cannot lead the message bus");
            return None;
        }
    };
    info!(epoch, "this relay leads the message bus");
    front.begin(&Lead::new(epoch, Arc::clone(&bus), front));
    Some((epoch, bus))
}

/// Ends what led. Its last commit may hang, which nobody waits for: whatever comes of it, another
/// relay's epoch is behind.
fn end(front: &Front, led: Option<(u64, Arc<Bus>)>) {
    front.end();
    if let Some((epoch, bus)) = led {
        info!(epoch, "this relay leads the message bus no more");
        tokio::spawn(async move { bus.stop().await });
    }
}
