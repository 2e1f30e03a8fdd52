"""From a consortium's file to keys, certificates, roster and one bundle a member."""
