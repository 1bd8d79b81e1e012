//! Every way the metadata service can disappoint has a name.

use std::time::{Duration, Instant};

use drawbridge::appliance::{Role, UserDataError};
use drawbridge::host::metadata::{Identity, MetadataError, MetadataService};

use super::imds::{Answer, Imds};
use super::world::user_data;

fn imds() -> Imds {
    let imds = Imds::start("127.0.0.1:0");
    imds.instance("i-0aa", "10.20.1.10", &user_data("bastion", ""));
    imds
}

fn service(imds: &Imds) -> MetadataService {
    MetadataService::at(&imds.url(), Duration::from_secs(3)).unwrap()
}

async fn user_data_error(imds: &Imds) -> MetadataError {
    service(imds).user_data("ap-south-1").await.unwrap_err()
}

#[tokio::test]
async fn an_instance_learns_who_it_is_with_a_session_token() {
    let imds = imds();
    let expected = Identity {
        instance_id: "i-0aa".into(),
        image_id: "ami-0123456789abcdef0".into(),
        address: [10, 20, 1, 10].into(),
        region: "ap-south-1".into(),
    };
    assert_eq!(service(&imds).identity().await.unwrap(), expected);
    let user_data = service(&imds).user_data("ap-south-1").await.unwrap();
    assert_eq!(user_data.role(), Role::Bastion);
    let asked = imds.asked();
    assert_eq!((asked.with_token, asked.without_token), (5, Vec::new()));
}

/// A service that wants no token gets asked with one all the same, and without one never.
#[tokio::test]
async fn nothing_is_ever_asked_without_a_session_token() {
    for (item, answer) in [
        ("token", Answer::Status(403)),
        ("token", Answer::Status(404)),
        ("token", Answer::Status(500)),
        ("token", Answer::Hang),
        ("user-data", Answer::Status(401)),
        ("user-data", Answer::HangHalfway("{".into())),
    ] {
        let imds = imds();
        imds.set(item, answer.clone());
        let service = MetadataService::at(&imds.url(), Duration::from_secs(2)).unwrap();
        assert!(service.user_data("ap-south-1").await.is_err());
        assert_eq!(imds.asked().without_token, [""; 0], "{item} {answer:?}");
    }
    // The twin: the service notices.
    let imds = imds();
    let mut stream = std::net::TcpStream::connect(imds.address).unwrap();
    let request = b"GET /latest/user-data HTTP/1.1\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    std::io::Read::read(&mut stream, &mut [0; 16]).unwrap();
    assert_eq!(imds.asked().without_token, ["/latest/user-data"]);
}

#[tokio::test]
async fn user_data_that_are_not_what_terraform_writes_are_named() {
    let imds = imds();
    let check = async |text: &str, fits: fn(&UserDataError) -> bool| {
        imds.text("user-data", text);
        match user_data_error(&imds).await {
            MetadataError::UserData(error) => assert!(fits(&error), "{error}"),
            other => panic!("{other}"),
        }
    };
    check("", |e| matches!(e, UserDataError::Empty)).await;
    check("#!/bin/sh", |e| {
        matches!(e, UserDataError::NotJson { line: 1, column: 1 })
    })
    .await;
    check(&"x".repeat(20_000), |e| {
        matches!(e, UserDataError::TooLarge { bytes: 20_000 })
    })
    .await;
    let good = user_data("bastion", "");
    let unknown = good.replacen("\"name\"", "\"color\":1,\"name\"", 1);
    check(
        &unknown,
        |e| matches!(e, UserDataError::Unknown { field } if field == "color"),
    )
    .await;
    let mistyped = good.replacen("\"drawbridge\"", "7", 1);
    check(&mistyped, |e| {
        matches!(e, UserDataError::Invalid { field: "name", .. })
    })
    .await;
    let missing = good.replacen("\"name\":\"drawbridge\",", "", 1);
    check(&missing, |e| {
        matches!(e, UserDataError::Missing { field: "name", .. })
    })
    .await;

    imds.set("user-data", Answer::Status(404));
    let error = user_data_error(&imds).await;
    assert!(
        matches!(error, MetadataError::UserData(UserDataError::Empty)),
        "{error}"
    );
    imds.text("user-data", &good);
    let error = service(&imds).user_data("eu-west-1").await.unwrap_err();
    assert!(
        matches!(error, MetadataError::OtherRegion { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_service_that_refuses_or_fails_is_named_within_the_limit() {
    type Fits = fn(&MetadataError) -> bool;
    let unusable: Fits = |e| matches!(e, MetadataError::NotUsable(_));
    let refused: Fits = |e| matches!(e, MetadataError::Refused);
    let cases: [(&str, Answer, Fits, &str); 10] = [
        ("token", Answer::Status(403), refused, "403"),
        (
            "token",
            Answer::Text("an-old-token".into()),
            unusable,
            "status 401",
        ),
        ("token", Answer::Hang, unusable, "no answer"),
        ("user-data", Answer::Status(401), unusable, "status 401"),
        ("user-data", Answer::Status(403), refused, "403"),
        ("user-data", Answer::Status(503), unusable, "status 503"),
        (
            "user-data",
            Answer::Status(400),
            |e| matches!(e, MetadataError::Status { status: 400, .. }),
            "400",
        ),
        ("user-data", Answer::Hang, unusable, "no answer"),
        (
            "user-data",
            Answer::HangHalfway(user_data("bastion", "")),
            unusable,
            "no answer",
        ),
        ("nobody listens", Answer::Hang, unusable, "user-data"),
    ];
    let cases_at_once = tokio::task::LocalSet::new();
    let each = cases.into_iter().map(|(item, answer, fits, said)| {
        cases_at_once.spawn_local(async move {
            let imds = imds();
            imds.set(item, answer.clone());
            let service = match item {
                "nobody listens" => {
                    MetadataService::at("http://127.0.0.1:1", Duration::from_secs(1)).unwrap()
                }
                _ => service(&imds),
            };
            let start = Instant::now();
            let error = service.user_data("ap-south-1").await.unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error}: {}", source.unwrap_or_default());
            assert!(
                fits(&error) && text.contains(said),
                "{item} {answer:?}: {text}"
            );
            assert!(!text.contains("must not be quoted"), "{text}");
            assert!(
                start.elapsed() < Duration::from_secs(8),
                "{item}: {:?}",
                start.elapsed()
            );
        })
    });
    let each: Vec<_> = each.collect();
    cases_at_once.await;
    for case in each {
        case.await.unwrap();
    }
}

#[tokio::test]
async fn facts_of_another_shape_are_refused() {
    let cases = [
        ("meta-data/instance-id", "<html>"),
        ("meta-data/ami-id", "i-0aa"),
        ("meta-data/local-ipv4", "ten"),
        ("meta-data/placement/region", ""),
    ];
    for (item, text) in cases {
        let imds = imds();
        imds.text(item, text);
        let error = service(&imds).identity().await.unwrap_err();
        assert!(
            matches!(&error, MetadataError::Shape { item: named, .. } if *named == item),
            "{error}"
        );
    }
    let imds = imds();
    imds.set("meta-data/local-ipv4", Answer::Status(404));
    let error = service(&imds).identity().await.unwrap_err();
    assert!(
        matches!(
            error,
            MetadataError::Missing {
                item: "meta-data/local-ipv4"
            }
        ),
        "{error}"
    );
}
