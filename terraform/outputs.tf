# ─── Outputs ──────────────────────────────────────────────────────────────────

output "deployment" {
  description = "Everything the drawbridge command knows about this deployment. `nat_gateway` is null while the window is closed, its `schedule` is null without a deadline; `url` has no slash at its end, `ready_url` answers 200 while the API can serve."
  value = {
    name                   = var.name
    region                 = var.region
    account_id             = data.aws_caller_identity.current.account_id
    vpc_id                 = aws_vpc.main.id
    private_route_table_id = aws_route_table.private.id
    bastion = {
      instance_id = aws_instance.bastion.id
      private_ip  = aws_instance.bastion.private_ip
      public_ip   = aws_eip.bastion.public_ip
      image_id    = aws_instance.bastion.ami
    }
    backend = {
      instance_id = aws_instance.backend.id
      private_ip  = aws_instance.backend.private_ip
      image_id    = aws_instance.backend.ami
    }
    database = {
      instance_id = aws_instance.database.id
      private_ip  = aws_instance.database.private_ip
      image_id    = aws_instance.database.ami
    }
    database_volume_id = aws_ebs_volume.database.id
    load_balancer = {
      dns_name  = aws_lb.main.dns_name
      url       = local.public_url
      ready_url = "${local.public_url}${var.health_check_path}"
    }
    nat_gateway = one([
      for index, gateway in aws_nat_gateway.main : {
        id            = gateway.id
        public_ip     = gateway.public_ip
        allocation_id = gateway.allocation_id
        schedule      = one(aws_scheduler_schedule.nat_deadline[*].name)
      }
    ])
  }
}

output "docs_url" {
  description = "For people: the API's documentation in the browser."
  value       = "${local.public_url}/docs"
}

output "dns_record" {
  description = "For people: what to enter in the DNS of `domain`, \"CNAME <domain> -> <load balancer>\". Absent without a domain."
  value       = var.domain == null ? null : "CNAME ${var.domain} -> ${aws_lb.main.dns_name}"
}

output "bastion_public_ip" {
  description = "For people: the address ssh goes to."
  value       = aws_eip.bastion.public_ip
}
