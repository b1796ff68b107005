//! Keeps the relay's own addresses current, which no endpoint may have.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Overlay;
use crate::net::local::REFRESH_INTERVAL;

/// Reads them again and again; ends by a panic alone, which ends the relay.
pub(super) async fn keep(overlay: Arc<Overlay>) {
    let mut ticks = interval(REFRESH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        ticks.tick().await;
        let reading = Arc::clone(&overlay);
        let read = spawn_blocking(move || reading.local_addresses().refresh(Instant::now())).await;
        match read {
            Ok(Ok(())) if std::mem::take(&mut fails) => {
                info!("the addresses of this machine can be read again");
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if !std::mem::replace(&mut fails, true) {
                    warn!(
                        %error,
                        "cannot read the addresses of this machine: claims from the relay's own \
                         port number are refused meanwhile"
                    );
                }
            }
            Err(_panicked) => return,
        }
    }
}
