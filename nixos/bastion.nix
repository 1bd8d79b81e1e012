# The bastion: sshd (sshd.nix) and nothing else, with a limit on how often one address may knock, and a record of every
# connection that leaves.
{
  networking.nftables.tables.bastion = {
    family = "inet";
    content = builtins.readFile ./settings/bastion.nft;
  };
}
