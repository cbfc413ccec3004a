-- What sandbox.load has wrk do: paced requests, counted by status and by the colour that answered.
-- Arguments: milliseconds between two requests of a connection, and a file that ends the sending.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   pause = tonumber(args[1])
   stop_file = args[2]
   sent, answered = -1, 0 -- wrk itself asks for one request that it does not send
   by_color, by_status = {}, {}
   math.randomseed(os.time())
end

-- Half to one and a half pauses, so that connections do not march in step.
function delay()
   local file = io.open(stop_file)
   if file then
      file:close()
      return 1000000
   end
   return math.floor(pause * (0.5 + math.random()))
end

function request()
   sent = sent + 1
   return wrk.format()
end

function response(status, headers)
   answered = answered + 1
   by_status[tostring(status)] = (by_status[tostring(status)] or 0) + 1
   local color = headers["X-Color"] or headers["x-color"]
   if color then by_color[color] = (by_color[color] or 0) + 1 end
end

local function object(counts)
   local parts = {}
   for name, count in pairs(counts) do
      table.insert(parts, string.format('"%s": %d', name, count))
   end
   return "{" .. table.concat(parts, ", ") .. "}"
end

function done(summary, latency)
   local thread = threads[1]
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"sent": %d, "answered": %d, "connect": %d, "read": %d, "write": %d, ' ..
      '"timeout": %d, "p50": %d, "p99": %d, "by_color": %s, "by_status": %s}\n',
      thread:get("sent"), thread:get("answered"), errors.connect, errors.read, errors.write,
      errors.timeout, latency:percentile(50), latency:percentile(99),
      object(thread:get("by_color")), object(thread:get("by_status"))))
end
