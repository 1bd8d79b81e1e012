//! AWS services played by a function: what the SDK asks over HTTP, and what it is answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

/// Answers every request with the status and body that `answer` makes of its first line (lower case) and its body, until
/// the test ends; a request it makes nothing of is dropped. Returns what `AWS_ENDPOINT_URL` wants.
pub fn serve(
    answer: impl Fn(&str, &[u8]) -> Option<(u16, String)> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve_one(stream, answer.as_ref()));
        }
    });
    endpoint
}

fn serve_one(
    mut stream: TcpStream,
    answer: &impl Fn(&str, &[u8]) -> Option<(u16, String)>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.to_lowercase());
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let (status, body) = answer(head.first()?, &body)?;
    let now = time::OffsetDateTime::now_utc();
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = now.format(format).ok()?;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

/// What SSM answers who asks for some of the parameters `known`, an object of strings.
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>
pub fn parameters(known: &Value, asked: &[u8]) -> Option<String> {
    let asked: Value = serde_json::from_slice(asked).ok()?;
    let (found, missing): (Vec<_>, Vec<_>) = asked["Names"]
        .as_array()?
        .iter()
        .partition(|name| known.get(name.as_str().unwrap()).is_some());
    let parameter = |name: &&Value| json!({"Name": name, "Value": known[name.as_str().unwrap()], "Type": "String"});
    let found: Vec<_> = found.iter().map(parameter).collect();
    Some(json!({"Parameters": found, "InvalidParameters": missing}).to_string())
}

/// What STS answers who asks for the account of the credentials: this one, or this error code.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
pub fn identity(identity: &str) -> (u16, String) {
    if identity.starts_with(|first: char| first.is_ascii_digit()) {
        let arn = format!("arn:aws:iam::{identity}:user/alice");
        let result = format!("<Arn>{arn}</Arn><UserId>A</UserId><Account>{identity}</Account>");
        let namespace = r#"xmlns="https://sts.amazonaws.com/doc/2011-06-15/""#;
        let result = format!("<GetCallerIdentityResult>{result}</GetCallerIdentityResult>");
        let name = "GetCallerIdentityResponse";
        (200, format!("<{name} {namespace}>{result}</{name}>"))
    } else {
        let error = format!(
            "<Error><Type>Sender</Type><Code>{identity}</Code><Message>no</Message></Error>"
        );
        (403, format!("<ErrorResponse>{error}</ErrorResponse>"))
    }
}
