//! The shipped `terraform/`, rehearsed to the end, and a second window after it.

use std::fs;

use super::stage::Stage;
use crate::support::repository;

/// Proofs without which a rehearsal would prove less than it promises.
const PROMISED: &[&str] = &[
    "terraform apply",
    "backend has no public address",
    "database has no public address",
    "backend's subnet is private",
    "database's subnet is private",
    "backend's way out is a route of its own",
    "database's way out is a route of its own",
    "ssh to the bastion",
    "instance metadata needs a session token (IMDSv2)",
    "destroy-nat.sh refuses before the bootstrap is complete",
    "nothing was changed",
    "backend has bootstrapped",
    "database has bootstrapped",
    "internet → alb-1a: GET /docs",
    "internet → alb-1a: POST and GET /items",
    "internet → alb-1b: GET /docs",
    "internet → alb-1b: POST and GET /items",
    "backend → the AWS API",
    "database → the AWS API",
    "the AWS API sees private hosts only behind the NAT gateway",
    "ssh to backend through the bastion",
    "ssh to database through the bastion",
    "the bastion forwards to backend:22",
    "the bastion forwards to database:22",
    "the bastion forwards to no other port",
    "a database with another host key is refused",
    "admins → bastion:22",
    "internet → load_balancer:80",
    "internet → load_balancer:443 is closed without a certificate",
    "load_balancer → backend:8000",
    "bastion → backend:22",
    "bastion → database:22",
    "backend → database:5432",
    "nothing but flows.json gets through",
    "the database password is in no state, user data, log or argument",
    "destroy-nat.sh closes the window",
    "destroy-nat.sh: nat-gateway-gone",
    "destroy-nat.sh: address-released",
    "destroy-nat.sh: plan-empty",
    "destroy-nat.sh: api-ready",
    "destroy-nat.sh: no-egress-backend",
    "destroy-nat.sh: no-egress-database",
    "gateway, address, route and schedule are gone from the state",
    "the position file says closed",
    "internet → API: POST and GET /items",
    "backend has no way out",
    "database has no way out",
    "backend's bootstrap is complete without the internet",
    "drawbridge audit finds nothing",
    "nat open runs a command while the window is open",
    "backend reaches out through a new gateway",
    "nat open closes the window",
    "nat open: nat-gateway-gone",
    "nat open: address-released",
    "nat open: plan-empty",
    "nat open: api-ready",
    "nat open: no-egress-backend",
    "nat open: no-egress-database",
];

#[test]
fn every_proof_holds_on_the_shipped_terraform() {
    let stage = Stage::as_shipped();
    let position = repository().join("terraform/nat.auto.tfvars.json");
    let before = fs::read_to_string(&position).unwrap();
    let ended = stage.rehearse_with(&["--reopen"]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(ended.report["held"], true);
    for name in PROMISED {
        assert!(ended.held(name), "{name}");
    }
    let refused = ended.detail("the bastion forwards to no other port");
    assert!(refused.contains("database:5432"), "{refused}");
    // Every shipped flow leads to a program of the images.
    let stand_ins = ended
        .proofs()
        .into_iter()
        .filter(|(.., detail)| detail.contains("stand-in"));
    assert_eq!(stand_ins.count(), 0, "{}", ended.said);
    // The copy is rehearsed, not the repository's own files, and not even the copy is written to.
    assert_eq!(fs::read_to_string(&position).unwrap(), before);
    assert!(!stage.terraform().join("terraform.tfstate").exists());
    let own = ended.report["seconds"].as_f64().unwrap()
        - ended.report["terraform_seconds"].as_f64().unwrap();
    println!(
        "{} proofs; {own:.1} s of its own, {:.1} s of waiting for terraform",
        ended.proofs().len(),
        ended.report["terraform_seconds"].as_f64().unwrap()
    );
}
