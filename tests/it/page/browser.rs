//! Drives a real Chromium by the DevTools protocol, over the tests' own WebSocket client. Tests that
//! run at the same time share one, in which each has a profile and a window of its own.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{PATIENCE, Program, look_until};
use crate::peer::Peer;

/// Kept by each page from its first line on: what its policy forbade.
const WATCH_THE_POLICY: &str = "window.violations = []; addEventListener('securitypolicyviolation', \
     (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));";

/// A Chromium without a window, which ends with the last test that uses it.
struct Chromium {
    /// Host and port, and the path, of its DevTools.
    address: SocketAddr,
    path: String,
    _program: Program,
    /// Outlives the program.
    _profile: TempDir,
}

impl Chromium {
    /// The one that runs, or a new one: to start one takes a second.
    fn shared() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Chromium>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock();
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *running = Arc::downgrade(&started);
            started
        })
    }

    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = Program::start(
            Command::new("chromium")
                // No sandbox: root has none, and the page is our own.
                .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
                .args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"])
                // Several windows, all of which are to draw.
                .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding"])
                .args(["--disable-backgrounding-occluded-windows"])
                .args(["--remote-debugging-port=0", "--lang=en-GB"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .arg("about:blank"),
        );
        let line = program.wait_for_line("DevTools listening on ws://");
        let url = line.split("ws://").nth(1).unwrap().trim();
        let (address, path) = url.split_once('/').unwrap();
        let (address, path) = (address.parse().unwrap(), path.to_owned());
        Self { address, path, _program: program, _profile: profile }
    }
}

/// A page in a browser.
pub(crate) struct Browser {
    connection: Peer,
    session: Value,
    calls: u64,
    /// What the page complained of.
    complaints: Vec<String>,
    _chromium: Arc<Chromium>,
}

impl Browser {
    /// Opens an empty page, with storage that no other test has.
    pub(crate) fn start() -> Self {
        let chromium = Chromium::shared();
        let Chromium { address, path, .. } = &*chromium;
        let mut connection = Peer::connect(*address);
        let (status, _) = connection.ask(&format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        assert_eq!(status, 101);
        let mut browser = Self {
            connection,
            session: Value::Null,
            calls: 0,
            complaints: Vec::new(),
            _chromium: chromium,
        };
        // It is closed with the connection.
        let profile = json!({ "disposeOnDetach": true });
        let profile = browser.call("Target.createBrowserContext", &profile);
        let window = json!({
            "url": "about:blank",
            "browserContextId": profile["browserContextId"],
            "newWindow": true,
        });
        let target = browser.call("Target.createTarget", &window);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        let watch = json!({ "source": WATCH_THE_POLICY });
        browser.call("Page.addScriptToEvaluateOnNewDocument", &watch);
        browser
    }

    /// Calls a method of the protocol, and notes what the page says meanwhile.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.connection.send(1, call.to_string().as_bytes());
        loop {
            let (opcode, text) = self.connection.read().expect("Chromium is there");
            assert_eq!(opcode, 1);
            let message: Value = serde_json::from_slice(&text).unwrap();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let said = &message["params"];
        let is_complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => said["type"] != "log",
            Some("Log.entryAdded") => said["entry"]["level"] != "info",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(said.to_string());
        }
    }

    /// Opens an address, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let result = self.call("Page.navigate", &json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{result}");
        self.wait_for("document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// The value of an expression in the page, or of what it promises.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let how = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let result = self.call("Runtime.evaluate", &how);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        let held = look_until(end, || (self.value(expression) == true).then_some(()));
        if held.is_none() {
            let text = self.value("document.body.innerText");
            panic!("never: {expression}; the page:\n{}", text.as_str().unwrap_or_default());
        }
    }

    /// What the page, or the browser about it, has complained of since the last call: errors,
    /// warnings, and what the content security policy forbade.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let forbidden = self.value("window.violations");
        let forbidden = forbidden.as_array().unwrap().iter().map(Value::to_string);
        std::mem::take(&mut self.complaints).into_iter().chain(forbidden).collect()
    }

    /// Makes the window this large, in CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Says which colours the system prefers: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// The window as a PNG, or all of the page.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }
}
