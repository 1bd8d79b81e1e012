//! A metadata service as EC2 has it: no answer without a session token. It can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Debug)]
pub enum Answer {
    Text(String),
    Status(u16),
    Hang,
    /// Begins an answer and never ends it.
    HangHalfway(String),
}

#[derive(Clone)]
pub struct Imds {
    pub address: SocketAddr,
    items: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Asked>>,
}

/// What was asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub with_token: usize,
    /// Version 1 of the service, which an instance of ours never uses.
    pub without_token: Vec<String>,
}

const TOKEN: &str = "a-session-token";

impl Imds {
    pub fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let imds = Imds {
            address: listener.local_addr().unwrap(),
            items: Arc::default(),
            asked: Arc::default(),
        };
        let (items, asked) = (imds.items.clone(), imds.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (items, asked) = (items.clone(), asked.clone());
                std::thread::spawn(move || serve(stream, &items, &asked));
            }
        });
        imds
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Asked {
        self.asked.lock().unwrap().clone()
    }

    /// `item` is a path below /latest/, or `token`.
    /// Returns what was answered before.
    pub fn set(&self, item: &str, answer: Answer) -> Option<Answer> {
        self.items.lock().unwrap().insert(item.into(), answer)
    }

    pub fn text(&self, item: &str, text: &str) -> Option<Answer> {
        self.set(item, Answer::Text(text.into()))
    }

    pub fn instance(&self, id: &str, address: &str, user_data: &str) {
        self.text("meta-data/instance-id", id);
        self.text("meta-data/ami-id", "ami-0123456789abcdef0");
        self.text("meta-data/local-ipv4", address);
        self.text("meta-data/placement/region", "ap-south-1");
        self.text("user-data", user_data);
    }
}

fn serve(
    mut stream: TcpStream,
    items: &Mutex<HashMap<String, Answer>>,
    asked: &Mutex<Asked>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let (mut token, mut any_token) = (false, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_lowercase();
            any_token |= line.starts_with("x-aws-ec2-metadata-token: ");
            token |= line == format!("x-aws-ec2-metadata-token: {TOKEN}");
            if line.is_empty() {
                break;
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let item = path.strip_prefix("/latest/").unwrap_or_default();
        let known = |item: &str| items.lock().unwrap().get(item).cloned();
        if (method, item) != ("PUT", "api/token") {
            let mut asked = asked.lock().unwrap();
            match any_token {
                true => asked.with_token += 1,
                false => asked.without_token.push(path.to_owned()),
            }
        }
        let answer = match (method, item) {
            ("PUT", "api/token") => known("token").unwrap_or(Answer::Text(TOKEN.into())),
            _ if !token => Answer::Status(401),
            _ => known(item).unwrap_or(Answer::Status(404)),
        };
        let (status, text) = match answer {
            Answer::Text(text) => (200, text),
            Answer::Status(status) => (status, "what is said here must not be quoted".into()),
            Answer::Hang => {
                std::thread::sleep(Duration::from_secs(60));
                return None;
            }
            Answer::HangHalfway(text) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n";
                stream
                    .write_all((head.to_owned() + &text).as_bytes())
                    .ok()?;
                std::thread::sleep(Duration::from_secs(60));
                return None;
            }
        };
        let lifetime = match status {
            200 => "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n{lifetime}\r\n",
            text.len()
        );
        stream.write_all((head + &text).as_bytes()).ok()?;
    }
}
