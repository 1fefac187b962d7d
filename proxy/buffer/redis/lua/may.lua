#!lua flags=no-writes,allow-oom
-- may: which of these commands this user is not let do. None of them is done.     Bound: the commands.
-- ARGV  1 a key of ours     2.. commands     Answers the commands that are refused.

local refused = {}
for i = 2, #ARGV do
  if not redis.acl_check_cmd(ARGV[i], ARGV[1]) then refused[#refused + 1] = ARGV[i] end
end
return refused
