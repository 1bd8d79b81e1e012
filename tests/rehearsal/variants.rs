//! What people change about the shipped `terraform/` without editing anything else: flows more, a certificate. In one
//! rehearsal, as nothing of one is about the other.

use super::stage::{Ended, Stage};

#[test]
fn flows_more_are_rehearsed_like_the_others_and_a_certificate_puts_everything_on_tls() {
    let stage = Stage::new();
    stage.edit(
        "flows.json",
        "\n]",
        ",\n  { \"from\": \"bastion\", \"to\": \"database\", \"port\": 5432, \"why\": \"psql\" },\n  \
         { \"from\": \"backend\", \"to\": \"database\", \"port\": 9187, \"why\": \"metrics\" }\n]",
    );
    // Neither the certificate's account nor its key is known here, and the images are said to be for x86_64.
    let variables = r#"
        certificate_arn = "arn:aws:acm:ap-south-1:999988887777:certificate/8a1f0000-0000"
        domain          = "api.example.org"
        instance_types  = { bastion = "t4g.nano", backend = "t4g.micro", database = "t4g.small" }
    "#;
    std::fs::write(stage.terraform().join("terraform.tfvars"), variables).unwrap();
    let ended = stage.rehearse();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(ended.report["held"], true);
    flows_more_are_tried(&ended);
    everything_goes_over_tls(&ended);
}

fn flows_more_are_tried(ended: &Ended) {
    for name in [
        "bastion → database:5432",
        "the bastion forwards to database:5432",
        "the bastion forwards to database:22",
        "nothing but flows.json gets through",
    ] {
        assert!(ended.held(name), "{name}");
    }
    assert!(!ended.detail("bastion → database:5432").contains("stand-in"));
    // No program of the images listens there yet.
    let metrics = ended.detail("backend → database:9187");
    assert!(
        metrics.contains("connects") && metrics.contains("a stand-in listens on database"),
        "{metrics}"
    );
    let refused = ended.detail("the bastion forwards to no other port");
    assert!(
        refused.contains("database:9187") && !refused.contains("database:5432"),
        "{refused}"
    );
}

fn everything_goes_over_tls(ended: &Ended) {
    for name in [
        "internet → load_balancer:80",
        "internet → load_balancer:443",
        "internet → alb-1a: GET /docs",
        "internet → alb-1b: POST and GET /items",
        "internet → alb-1a: TLS 1.1 is refused",
        "internet → alb-1b: TLS 1.1 is refused",
        "internet → API: POST and GET /items",
    ] {
        assert!(ended.held(name), "{name}");
    }
    for node in ["alb-1a", "alb-1b"] {
        let redirect = ended.detail(&format!("internet → {node}: port 80 only redirects"));
        assert!(
            redirect.starts_with("301 to https://api.example.org:443/items"),
            "{redirect}"
        );
    }
    let ready = ended.detail("destroy-nat.sh: api-ready");
    assert!(
        ready.contains("https://api.example.org/ready answers 200"),
        "{ready}"
    );
    let local = ended
        .proofs()
        .into_iter()
        .find(|(name, ..)| name.starts_with("this machine's browser: GET https://127.0.0.1:"));
    assert!(local.is_some(), "{}", ended.said);
}
