# ─── Outputs ──────────────────────────────────────────────────────────────────

output "deployment" {
  description = "Everything the drawbridge command knows about this deployment; `nat_gateway` is null while the window is closed."
  value = {
    name   = var.name
    region = var.region
    vpc_id = aws_vpc.main.id
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
    load_balancer = {
      dns_name = aws_lb.main.dns_name
      url      = "http://${aws_lb.main.dns_name}"
    }
    nat_gateway = one([
      for index, gateway in aws_nat_gateway.main : {
        id            = gateway.id
        public_ip     = gateway.public_ip
        allocation_id = gateway.allocation_id
      }
    ])
  }
}

output "docs_url" {
  description = "For people: the API's documentation in the browser."
  value       = "http://${aws_lb.main.dns_name}/docs"
}

output "bastion_public_ip" {
  description = "For people: the address ssh goes to."
  value       = aws_eip.bastion.public_ip
}
