//! Each twin plants one mistake in a copy of `terraform/`; the rehearsal has to end with status 1 and name it.

use super::stage::{Ended, Stage};

fn rehearse_with(mistake: impl FnOnce(&Stage)) -> Ended {
    let stage = Stage::new();
    mistake(&stage);
    let ended = stage.rehearse();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert_eq!(ended.report["held"], false);
    ended
}

#[test]
fn a_backend_that_is_open_to_everybody_is_named_with_the_rule() {
    let ended = rehearse_with(|stage| {
        for (name, protocol, from, to) in [
            ("planted", "tcp", 8000, 8000),
            // What no flow is about: other ports, and another protocol.
            ("planted_beside", "tcp", 9000, 9010),
            ("planted_udp", "udp", 53, 53),
        ] {
            stage.append(
                "security.tf",
                &format!(
                    r#"
resource "aws_vpc_security_group_ingress_rule" "{name}" {{
  security_group_id = aws_security_group.main["backend"].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "{protocol}"
  from_port         = {from}
  to_port           = {to}
}}
"#
                ),
            );
        }
    });
    assert!(!ended.held("nothing but flows.json gets through"));
    let error = ended.error();
    assert!(error.contains("backend:8000"), "{error}");
    assert!(
        error.contains("let in by aws_vpc_security_group_ingress_rule.planted;"),
        "{error}"
    );
    assert!(
        error.contains("backend:9010")
            && error.contains("let in by aws_vpc_security_group_ingress_rule.planted_beside"),
        "{error}"
    );
    assert!(
        error.contains("aws_vpc_security_group_ingress_rule.planted_udp lets UDP through"),
        "{error}"
    );
}

#[test]
fn a_missing_flow_from_the_bastion_to_the_database_is_named() {
    let ended = rehearse_with(|stage| {
        let path = stage.terraform().join("flows.json");
        let mut flows: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let flows = flows.as_array_mut().unwrap();
        let before = flows.len();
        flows.retain(|flow| !(flow["from"] == "bastion" && flow["to"] == "database"));
        assert_eq!(flows.len(), before - 1);
        std::fs::write(&path, serde_json::to_string(flows).unwrap()).unwrap();
    });
    assert!(!ended.held("ssh to database through the bastion"));
    assert!(ended.held("ssh to backend through the bastion"));
    let error = ended.error();
    assert!(error.contains("bastion → database:22"), "{error}");
}

#[test]
fn a_database_in_a_public_subnet_and_a_nat_route_written_inline_are_named_side_by_side() {
    let ended = rehearse_with(|stage| {
        stage.edit(
            "network.tf",
            "database   = { zone = local.zone.main, public = false }",
            "database   = { zone = local.zone.main, public = true }",
        );
        stage.edit(
            "network.tf",
            "resource \"aws_route_table\" \"private\" {\n  vpc_id = aws_vpc.main.id\n",
            "resource \"aws_route_table\" \"private\" {\n  vpc_id = aws_vpc.main.id\n  route {\n    cidr_block     = \
             \"0.0.0.0/0\"\n    nat_gateway_id = aws_nat_gateway.main[0].id\n  }\n",
        );
        // The separate route, and whoever waits for it, now wait for the table.
        let path = stage.terraform().join("nat.tf");
        let text = std::fs::read_to_string(&path).unwrap();
        let begin = text
            .find("resource \"aws_route\" \"private_internet\"")
            .unwrap();
        let end = begin + text[begin..].find("\n}\n").unwrap() + 3;
        std::fs::write(&path, [&text[..begin], &text[end..]].concat()).unwrap();
        for file in ["backend.tf", "database.tf"] {
            stage.edit(
                file,
                "    aws_route.private_internet,\n",
                "    aws_route_table.private,\n",
            );
        }
        // The gateway waited for all associations, and with them for the table that now waits for it.
        stage.edit(
            "nat.tf",
            "depends_on = [aws_route.public_internet, aws_route_table_association.main]",
            "depends_on = [aws_route.public_internet]",
        );
    });
    assert!(!ended.held("database's subnet is private"));
    assert!(ended.held("backend's subnet is private"));
    assert!(!ended.held("backend's way out is a route of its own"));
    assert!(ended.held("database has no public address"));
    let error = ended.error();
    assert!(
        error.contains(r#"aws_subnet.main["database"] is public"#),
        "{error}"
    );
    assert!(
        error.contains("the NAT route stands inline in aws_route_table.private"),
        "{error}"
    );
}
