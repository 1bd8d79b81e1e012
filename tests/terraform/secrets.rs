//! No secret in the state or in user data, and that the scan for them can fail.

use serde_json::{Value, json};

use super::{ADMIN_KEY, rows};
use crate::support::{Emulator, REGION, Stack, text};

/// Stands for what a host writes into SSM after the apply.
pub const HOST_SECRET: &str = "planted-3f9c1e-by-a-host";

#[test]
fn the_secret_scan_finds_what_it_looks_for() {
    let state = |attributes: Value| {
        json!({"outputs": {"docs_url": {"value": "http://a"}}, "resources": [{"instances": [{"attributes": attributes}]}]}).to_string()
    };
    let clean = state(
        json!({"value": "", "value_wo": null, "has_value_wo": true, "http_tokens": "required"}),
    );
    assert_eq!(secrets_in(&clean), Vec::<String>::new());
    for planted in [
        json!({"description": HOST_SECRET}),
        json!({"user_data": "-----BEGIN OPENSSH PRIVATE KEY-----"}),
        json!({"nested": [{"password": "x"}]}),
        json!({"value": "hello"}),
    ] {
        assert_eq!(secrets_in(&state(planted.clone())).len(), 1, "{planted}");
        assert_eq!(
            secrets_in(&planted.to_string()).len(),
            1,
            "as user data: {planted}"
        );
    }
}

pub fn hosts_publish(emulator: &Emulator) {
    for role in ["bastion", "backend", "database"] {
        for name in ["bootstrap", "ssh-host-key"] {
            let parameter = json!({"Name": format!("/drawbridge/hosts/{role}/{name}"), "Value": HOST_SECRET, "Overwrite": true});
            emulator.aws("ssm", "put_parameter", parameter);
        }
    }
    for name in ["login", "certificate"] {
        let parameter = json!({"Name": format!("/drawbridge/database/{name}"), "Value": HOST_SECRET, "Overwrite": true});
        emulator.aws("ssm", "put_parameter", parameter);
    }
}

pub fn user_data_is_the_documented_one(emulator: &Emulator, deployment: &Value) {
    let volumes = emulator.aws(
        "ec2",
        "describe_volumes",
        json!({"Filters": [{"Name": "tag:Name", "Values": ["drawbridge-database"]}]}),
    );
    let common = |role: &str| json!({"name": "drawbridge", "role": role, "region": REGION, "admin_keys": [ADMIN_KEY], "tunnel_keys": []});
    let mut expected = ["bastion", "backend", "database"].map(|role| (role, common(role)));
    expected[1].1["database_address"] = json!("10.20.3.10");
    expected[2].1["backend_cidr"] = json!("10.20.2.0/24");
    expected[2].1["data_volume"] = rows(&volumes, "Volumes")[0]["VolumeId"].clone();
    for (role, expected) in expected {
        let asked = json!({"InstanceId": deployment[role]["instance_id"], "Attribute": "userData"});
        let answer = emulator.aws("ec2", "describe_instance_attribute", asked);
        let user_data = from_base64(&text(&answer["UserData"]["Value"]));
        let document: Value =
            serde_json::from_str(&user_data).unwrap_or_else(|e| panic!("{role}: {user_data}: {e}"));
        assert_eq!(
            document, expected,
            "user data of the {role}: these fields and no other"
        );
        assert_eq!(secrets_in(&user_data), Vec::<String>::new());
    }
}

/// None of what a host wrote was overwritten by the applies since.
pub fn hosts_still_have_what_they_published(emulator: &Emulator) {
    let question = json!({"Name": "/drawbridge/database/login", "WithDecryption": true});
    let password = emulator.aws("ssm", "get_parameter", question);
    assert_eq!(password["Parameter"]["Value"], HOST_SECRET);
}

/// The twin of the scan: `value`, as somebody might write in place of `value_wo`, does enter the state.
pub fn plant_one(stack: &Stack) {
    let leak = r#"
resource "aws_ssm_parameter" "leak" {
  name  = "/drawbridge/leak"
  type  = "SecureString"
  value = "hunter2"
}
"#;
    stack.write("leak.tf", leak);
}

/// What must be neither in a state nor in user data: words that only a secret brings along, and fields
/// with a secret's name that hold something.
pub fn secrets_in(document: &str) -> Vec<String> {
    let words = [HOST_SECRET, "PRIVATE KEY-----"];
    let mut found: Vec<_> = words
        .into_iter()
        .filter(|word| document.contains(word))
        .map(str::to_owned)
        .collect();
    let document: Value = serde_json::from_str(document).expect("JSON");
    match document["resources"].as_array() {
        // Elsewhere in a state, `value` is an output's or part of a path.
        Some(resources) => resources
            .iter()
            .flat_map(|resource| rows(resource, "instances"))
            .for_each(|instance| filled_secret_fields(&instance["attributes"], &mut found)),
        None => filled_secret_fields(&document, &mut found),
    }
    found
}

fn filled_secret_fields(value: &Value, found: &mut Vec<String>) {
    let secret = [
        "password",
        "private_key",
        "secret",
        "token",
        "value",
        "value_wo",
        "insecure_value",
    ];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if secret.contains(&name.as_str())
                    && value.as_str().is_some_and(|text| !text.is_empty())
                {
                    found.push(format!("a filled field {name}"));
                }
                filled_secret_fields(value, found);
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| filled_secret_fields(value, found)),
        _ => {}
    }
}

pub fn from_base64(encoded: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<usize> = encoded
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| {
            ALPHABET
                .iter()
                .position(|letter| *letter == byte)
                .expect("a base64 letter")
        })
        .collect();
    let bytes = bits.chunks(4).flat_map(|four| {
        let joined = four.iter().fold(0, |sum, six| sum << 6 | six) << (6 * (4 - four.len()));
        [16, 8, 0]
            .map(|shift| (joined >> shift) as u8)
            .into_iter()
            .take(four.len() - 1)
    });
    String::from_utf8(bytes.collect()).expect("UTF-8")
}
