#!lua flags=no-writes,allow-oom
-- now: the store's clock.     KEYS  1 any key of the slot that is asked     ARGV  1 clock     Answers Unix ms.

return moment(ARGV[1])
