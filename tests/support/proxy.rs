//! Stands between AWS clients and the emulator: counts what they ask, and plays the bad days of a network and of
//! somebody's credentials.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Emulator, free_port};

/// Longer than the emulator takes to answer anything; a client that keeps a silent connection open is left by then.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// A proxy on 127.0.0.1 that passes everything on until it is told otherwise.
///
/// Calls are named as in IAM policies: `ec2:DescribeNatGateways`, `elasticloadbalancing:CreateListener`,
/// `ssm:GetParameters`, `scheduler:GetSchedule`. A REST call it has no name for is `service:METHOD /path`.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    emulator: u16,
    ended: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: BTreeMap<String, usize>,
    faults: Vec<Fault>,
    is_down: bool,
}

struct Fault {
    action: String,
    code: String,
    /// `None`: until healed.
    left: Option<usize>,
}

impl Proxy {
    /// Starts one in front of `emulator`. [`Emulator::through`] leads commands to it.
    pub fn start(emulator: &Emulator) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the proxy's port");
        let shared = Arc::new(Shared {
            emulator: emulator.port(),
            ended: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // An error is a client that went away; it says so itself.
                thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers every call of `action` with the AWS error `code` (`ExpiredToken`, `UnauthorizedOperation`,
    /// `InternalError`…) until [`Proxy::heal`]. A `*` at the end of `action` stands for any rest: `ec2:Describe*`, `*`.
    pub fn fail(&self, action: &str, code: &str) {
        self.fault(action, code, None);
    }

    /// As [`Proxy::fail`], but only the next `times` calls. Mind that clients try some errors again by themselves.
    pub fn fail_times(&self, action: &str, code: &str, times: usize) {
        self.fault(action, code, Some(times));
    }

    fn fault(&self, action: &str, code: &str, left: Option<usize>) {
        let (action, code) = (action.to_owned(), code.to_owned());
        self.shared
            .state
            .lock()
            .unwrap()
            .faults
            .push(Fault { action, code, left });
    }

    /// Network loss: drops every connection before anything is read, until [`Proxy::heal`].
    pub fn go_down(&self) {
        self.shared.state.lock().unwrap().is_down = true;
    }

    /// Ends all faults and the network loss.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.faults.clear();
        state.is_down = false;
    }

    /// How often each action was called since the start or [`Proxy::forget`], refused calls included.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.shared.state.lock().unwrap().calls.clone()
    }

    /// How often this action was called.
    pub fn count(&self, action: &str) -> usize {
        self.calls().get(action).copied().unwrap_or_default()
    }

    /// Starts counting anew.
    pub fn forget(&self) {
        self.shared.state.lock().unwrap().calls.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it sees the end.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Shared {
    /// One request for each connection: clients open another one for the next.
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        if self.state.lock().unwrap().is_down {
            return client.shutdown(Shutdown::Both);
        }
        client.set_read_timeout(Some(SILENCE_LIMIT))?;
        let Some(request) = Request::read(&client)? else {
            return Ok(());
        };
        let action = request.action();
        let refusal = {
            let mut state = self.state.lock().unwrap();
            *state.calls.entry(action.clone()).or_default() += 1;
            state.refusal(&action)
        };
        if let Some(code) = refusal {
            return client.write_all(&request.refused(&action, &code));
        }
        let mut emulator = TcpStream::connect((Ipv4Addr::LOCALHOST, self.emulator))?;
        emulator.set_read_timeout(Some(SILENCE_LIMIT))?;
        emulator.write_all(&request.bytes())?;
        let mut answer = Vec::new();
        emulator.read_to_end(&mut answer)?;
        // A loss that began meanwhile takes the answer too: the call was made and nobody learns what came of it.
        if self.state.lock().unwrap().is_down {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&answer)
    }
}

impl State {
    fn refusal(&mut self, action: &str) -> Option<String> {
        let is_meant = |fault: &Fault| match fault.action.strip_suffix('*') {
            Some(beginning) => action.starts_with(beginning),
            None => action == fault.action,
        };
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| is_meant(fault) && fault.left != Some(0))?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        Some(fault.code.clone())
    }
}

struct Request {
    /// `POST / HTTP/1.1`
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `None` when the client closed without asking anything.
    fn read(client: &TcpStream) -> std::io::Result<Option<Self>> {
        let mut lines = BufReader::new(client);
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            lines.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()))
                }
                None => break,
            }
        }
        let mut request = Self {
            line: line.trim_end().to_owned(),
            headers,
            body: Vec::new(),
        };
        assert_eq!(
            request.header("transfer-encoding"),
            None,
            "no AWS client here sends chunks"
        );
        let length = request
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        request.body.resize(length, 0);
        lines.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        Some(&headers.find(|(found, _)| found == name)?.1)
    }

    /// As it came, but for the connection, which ends with the answer.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            if name != "connection" {
                bytes.extend(format!("{name}: {value}\r\n").bytes());
            }
        }
        bytes.extend(b"connection: close\r\n\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// As the signature's scope has it: `Credential=KEY/20261120/ap-south-1/ec2/aws4_request`.
    fn service(&self) -> &str {
        self.header("authorization")
            .and_then(|signature| signature.split_once("Credential="))
            .and_then(|(_, scope)| scope.split('/').nth(3))
            .unwrap_or("unsigned")
    }

    fn action(&self) -> String {
        // The one service here that IAM and signatures call by two names.
        let service = match self.service() {
            "tagging" => "tag",
            service => service,
        };
        // JSON protocols: `AmazonSSM.GetParameters`.
        let target = self
            .header("x-amz-target")
            .and_then(|target| target.rsplit('.').next());
        let mut words = self.line.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let path = path.split('?').next().unwrap_or_default();
        let name = target
            .or_else(|| self.query_action())
            .or_else(|| match service {
                "scheduler" => scheduler_action(method, path),
                "ebs" => ebs_action(method, path),
                _ => None,
            });
        match name {
            Some(name) => format!("{service}:{name}"),
            None => format!("{service}:{method} {path}"),
        }
    }

    /// Query protocols have it in the form: `Action=DescribeVpcs&Version=2016-11-15`.
    fn query_action(&self) -> Option<&str> {
        let form = std::str::from_utf8(&self.body).ok()?;
        form.split('&')
            .find_map(|field| field.strip_prefix("Action="))
    }

    /// An error in the shape of the protocol that was spoken; in another shape the SDKs say only "unknown".
    fn refused(&self, action: &str, code: &str) -> Vec<u8> {
        let message = format!("{action} fails because a test wants it to");
        let error = format!(
            "<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let (kind, body) = match (self.query_action(), self.service()) {
            (Some(_), "ec2") => {
                let end = "<RequestID>test</RequestID></Response>";
                (
                    "text/xml",
                    format!("<Response><Errors>{error}</Errors>{end}"),
                )
            }
            (Some(_), _) => {
                let end = "<RequestId>test</RequestId></ErrorResponse>";
                ("text/xml", format!("<ErrorResponse>{error}{end}"))
            }
            (None, _) => {
                let body = serde_json::json!({"__type": code, "message": message}).to_string();
                ("application/x-amz-json-1.1", body)
            }
        };
        let status = match code {
            "InternalError" | "InternalFailure" | "InternalServerError" | "ServiceUnavailable" => {
                "500 Internal Server Error"
            }
            "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "ExpiredToken" => {
                "403 Forbidden"
            }
            _ => "400 Bad Request",
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Amzn-ErrorType: {code}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// <https://docs.aws.amazon.com/scheduler/latest/APIReference/API_Operations.html>
fn scheduler_action<'a>(method: &str, path: &str) -> Option<&'a str> {
    let is_one = path.starts_with("/schedules/");
    Some(match (method, is_one) {
        ("GET", true) => "GetSchedule",
        ("POST", true) => "CreateSchedule",
        ("PUT", true) => "UpdateSchedule",
        ("DELETE", true) => "DeleteSchedule",
        ("GET", false) if path == "/schedules" => "ListSchedules",
        ("GET", false) if path.starts_with("/tags/") => "ListTagsForResource",
        _ => return None,
    })
}

/// <https://docs.aws.amazon.com/ebs/latest/APIReference/API_Operations.html>
fn ebs_action<'a>(method: &str, path: &str) -> Option<&'a str> {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    Some(match (method, parts.as_slice()) {
        ("POST", ["snapshots"]) => "StartSnapshot",
        ("PUT", ["snapshots", _, "blocks", _]) => "PutSnapshotBlock",
        ("POST", ["snapshots", "completion", _]) => "CompleteSnapshot",
        ("GET", ["snapshots", _, "blocks", _]) => "GetSnapshotBlock",
        ("GET", ["snapshots", _, "blocks"]) => "ListSnapshotBlocks",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The protocols differ, so each has its turn: query in EC2's and in STS's dialect, JSON, REST.
    const CALLS: [(&str, &str, &str); 4] = [
        ("ec2", "describe_vpcs", "ec2:DescribeVpcs"),
        ("sts", "get_caller_identity", "sts:GetCallerIdentity"),
        ("ssm", "describe_parameters", "ssm:DescribeParameters"),
        ("scheduler", "list_schedules", "scheduler:ListSchedules"),
    ];

    #[test]
    fn calls_are_counted_faulted_dropped_and_healed() {
        let emulator = Emulator::start();
        let proxy = Proxy::start(&emulator);
        let watched = emulator.through(&proxy);
        for (service, operation, _) in CALLS {
            assert_eq!(
                watched.aws(service, operation, json!({})),
                emulator.aws(service, operation, json!({})),
            );
        }
        let once: BTreeMap<_, _> = CALLS.iter().map(|call| (call.2.to_owned(), 1)).collect();
        assert_eq!(proxy.calls(), once);

        for (service, operation, action) in CALLS {
            proxy.fail(action, "ExpiredToken");
            let refused = watched.call(service, operation, &json!({}));
            assert_ne!(refused.code, Some(0));
            let wanted = format!(
                "(ExpiredToken) when calling the {}",
                action.split_once(':').unwrap().1
            );
            assert!(refused.text.contains(&wanted), "{}", refused.text);
        }
        proxy.heal();
        proxy.forget();
        // boto3 tries an internal error again by itself.
        proxy.fail_times("ec2:*", "InternalError", 2);
        watched.aws("ec2", "describe_vpcs", json!({}));
        assert_eq!(proxy.count("ec2:DescribeVpcs"), 3);

        proxy.go_down();
        let lost = watched.call("ec2", "describe_vpcs", &json!({}));
        assert!(lost.text.contains("ConnectionClosedError"), "{}", lost.text);
        assert_eq!(
            proxy.count("ec2:DescribeVpcs"),
            3,
            "a lost call was passed on"
        );
        proxy.heal();
        watched.aws("ec2", "describe_vpcs", json!({}));
    }
}
