use serde_json::{Value, json};

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB ada";

fn database() -> Value {
    json!({
        "name": "drawbridge", "role": "database", "region": "ap-south-1", "admin_keys": [KEY],
        "tunnel_keys": [], "backend_cidr": "10.20.2.0/24", "data_volume": "vol-0abcdef0123456789",
    })
}

fn with(field: &str, value: Value) -> Result<UserData, UserDataError> {
    let mut document = database();
    document[field] = value;
    UserData::parse(&document.to_string())
}

#[test]
fn each_role_reads_its_own_document() {
    let data = UserData::parse(&database().to_string()).unwrap();
    assert_eq!(data.role(), Role::Database);
    assert_eq!(data.admin_keys[0].as_str(), KEY);
    assert_eq!(data.tunnel_keys, []);
    let Duty::Database {
        backend_cidr,
        data_volume,
    } = data.duty
    else {
        panic!("{data:?}")
    };
    assert_eq!(backend_cidr.to_string(), "10.20.2.0/24");
    assert_eq!(
        data_volume.device(),
        "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0abcdef0123456789"
    );

    let backend = json!({"name": "team-a", "role": "backend", "region": "us-gov-west-1", "admin_keys": [KEY],
        "tunnel_keys": [KEY], "database_address": "10.20.3.10"});
    let data = UserData::parse(&backend.to_string()).unwrap();
    assert_eq!(data.tunnel_keys[0].as_str(), KEY);
    assert_eq!(
        data.duty,
        Duty::Backend {
            database_address: Ipv4Addr::new(10, 20, 3, 10)
        }
    );
    let bastion = json!({"name": "team-a", "role": "bastion", "region": "ap-south-1", "admin_keys": [KEY],
        "tunnel_keys": []});
    assert_eq!(
        UserData::parse(&bastion.to_string()).unwrap().duty,
        Duty::Bastion
    );
}

#[test]
fn a_misshapen_field_is_named_and_its_value_is_not_shown() {
    for (field, value) in [
        ("name", json!("Sesame")),
        ("name", json!("s")),
        ("name", json!(7)),
        ("region", json!("sesame")),
        ("region", json!("ap--1")),
        ("role", json!("sesame")),
        ("admin_keys", json!([])),
        ("admin_keys", json!("ssh-ed25519 sesame")),
        ("tunnel_keys", json!("ssh-ed25519 sesame")),
        ("tunnel_keys", Value::Null),
        ("backend_cidr", json!("10.20.2.1/24")),
        ("backend_cidr", json!("0.0.0.0/0")),
        ("backend_cidr", json!("10.20.2.0/33")),
        ("backend_cidr", json!(["sesame"])),
        ("data_volume", json!("vol-sesame00")),
        ("data_volume", json!("vol-../../../dev/sda")),
    ] {
        let error = with(field, value).unwrap_err();
        assert!(
            matches!(&error, UserDataError::Invalid { field: named, .. } if *named == field),
            "{error}"
        );
        assert!(!error.to_string().contains("esame"), "{error}");
    }
    for field in ["admin_keys", "tunnel_keys"] {
        let error = with(field, json!([KEY, "sesame sesame"])).unwrap_err();
        assert_eq!(
            error,
            UserDataError::Key {
                field,
                position: 2,
                reason: SshKeyError::Type
            }
        );
        assert!(!error.to_string().contains("sesame"));
    }
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    assert_eq!(
        with("database_address", json!("10.0.0.1")),
        Err(UserDataError::Unknown {
            field: "database_address".into()
        })
    );
    for field in [
        "name",
        "role",
        "region",
        "admin_keys",
        "tunnel_keys",
        "backend_cidr",
        "data_volume",
    ] {
        let mut document = database();
        document.as_object_mut().unwrap().remove(field);
        let error = UserData::parse(&document.to_string()).unwrap_err();
        assert!(
            matches!(&error, UserDataError::Missing { field: named, .. } if *named == field),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_document_is_refused_by_name() {
    assert_eq!(UserData::parse(" \n"), Err(UserDataError::Empty));
    assert_eq!(UserData::parse("[1]"), Err(UserDataError::NotAnObject));
    assert_eq!(
        UserData::parse("#!/bin/sh\nsesame"),
        Err(UserDataError::NotJson { line: 1, column: 1 })
    );
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(SIZE_LIMIT_BYTES));
    assert_eq!(
        UserData::parse(&long),
        Err(UserDataError::TooLarge { bytes: long.len() })
    );
}
