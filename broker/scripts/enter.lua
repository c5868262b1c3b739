-- enter: a flight's job goes to this queue: it waits in that line, in no other, and is not parked.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: queue, agent, deadline
-- Returns  side (of the queue; 0: the common one), turn

local a = cmsgpack.unpack(ARGV[1])
local side, turn = enter_line(a.queue, a.agent, a.deadline, clock())
redis.call('HDEL', FLIGHT, 'parked_until')
keep_until(a.deadline + GRACE)
return {side, turn}
