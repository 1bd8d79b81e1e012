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
}

#[derive(Clone)]
pub struct Imds {
    pub address: SocketAddr,
    items: Arc<Mutex<HashMap<String, Answer>>>,
}

const TOKEN: &str = "a-session-token";

impl Imds {
    pub fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let imds = Imds {
            address: listener.local_addr().unwrap(),
            items: Arc::default(),
        };
        let items = imds.items.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let items = items.clone();
                std::thread::spawn(move || serve(stream, &items));
            }
        });
        imds
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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

fn serve(mut stream: TcpStream, items: &Mutex<HashMap<String, Answer>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut token = false;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_lowercase();
            token |= line == format!("x-aws-ec2-metadata-token: {TOKEN}");
            if line.is_empty() {
                break;
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let item = path.strip_prefix("/latest/").unwrap_or_default();
        let known = |item: &str| items.lock().unwrap().get(item).cloned();
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
        };
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n",
            text.len()
        );
        stream.write_all((head + &text).as_bytes()).ok()?;
    }
}
