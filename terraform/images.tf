# ─── Images and instance types: the processors must be the same ───────────────
#
# EC2 refuses to start an image on another processor only when the machine is made, minutes into an
# apply. Images are looked for by list, because a list may come back short: an image that was
# deregistered must not break the plans of a machine that runs from it.

data "aws_ami_ids" "of_architecture" {
  for_each           = toset(["x86_64", "arm64"])
  owners             = var.image_owners
  include_deprecated = true

  filter {
    name   = "image-id"
    values = distinct(values(var.images))
  }
  filter {
    name   = "architecture"
    values = [each.key]
  }
}

locals {
  image_architectures = merge([
    for architecture, images in data.aws_ami_ids.of_architecture : { for id in images.ids : id => architecture }
  ]...)
  missing_images = { for role, id in var.images : role => id if !contains(keys(local.image_architectures), id) }

  fitting_type = { x86_64 = "t3.micro", arm64 = "t4g.micro" }
}

data "aws_ec2_instance_type" "chosen" {
  for_each      = toset(values(var.instance_types))
  instance_type = each.key

  lifecycle {
    postcondition {
      condition = alltrue([
        for role, id in var.images : contains(self.supported_architectures, lookup(local.image_architectures, id, self.supported_architectures[0]))
        if var.instance_types[role] == each.key
      ])
      error_message = join(" ", [
        for role, id in var.images :
        "instance_types.${role} is ${each.key} (${join(", ", self.supported_architectures)}), but its image ${id} is ${local.image_architectures[id]}: choose a type such as ${local.fitting_type[local.image_architectures[id]]}, or publish an image for that processor."
        if var.instance_types[role] == each.key && try(!contains(self.supported_architectures, local.image_architectures[id]), false)
      ])
    }
  }
}

check "images_exist" {
  assert {
    condition     = length(local.missing_images) == 0
    error_message = "No x86_64 or arm64 image of image_owners (${join(", ", var.image_owners)}) in ${var.region} has these ids: ${join(", ", [for role, id in local.missing_images : "${role} ${id}"])}. A machine that runs goes on, but none can be started anew: publish images, or correct image_owners."
  }
}
